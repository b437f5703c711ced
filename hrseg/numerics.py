"""Losses that are no number: the step is not taken, the batch is kept, and it is said."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from rich import get_console
from torch import Tensor, nn
from torch.optim import Optimizer

from hrseg.atomic import replacing
from hrseg.errors import ConfigError, ProofError

IGNORE = 255
Policy = Literal["stop", "skip"]
POLICIES: dict[str, Policy] = {"stop": "stop", "skip": "skip"}
IN_A_ROW = 10  # skipped steps after which training is over
KEPT_BATCHES = 3
REPAIR = "Lower optimizer.lr, or add schedule.warmup_steps or trainer.gradient_clip_val."


class LossGuard(Callback):
    """Keeps a loss that is NaN or infinite from the weights, and from the checkpoints.

    The optimiser takes no step with it. "stop" ends the run; "skip" goes on with the next batch,
    the batch norm statistics as they were, and counts. Either way the batch is kept in the run's
    `bad_batches/`: its tensors, pictures of its images and masks. Batches that hold nothing but
    ignored pixels, whose loss is 0, are counted as well.

    The loss is looked at when the backward pass is under way, so that a GPU does not wait for it.
    """

    def __init__(self, policy: Policy = "stop") -> None:
        """Take what to do about such a loss."""
        self.policy = policy
        self.skipped = self._in_a_row = self._kept = 0
        self._losses: list[Tensor] = []
        self._batches: list[dict[str, Any]] = []
        self._statistics: list[Tensor] = []
        self._empty: Tensor | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, and under "skip" the statistics that its forward pass changes."""
        if not self._batches and self.policy == "skip":
            buffers = _statistics(pl_module)
            if not self._statistics:
                self._statistics = [buffer.clone() for buffer in buffers]
            torch._foreach_copy_(self._statistics, buffers)
        self._batches.append(batch)
        empty = (batch["mask"] == IGNORE).all().int()
        self._empty = empty if self._empty is None else self._empty + empty

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        """Remember the loss."""
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Look at the losses of the step, in all processes.

        Raises:
            ProofError: one is no number, and the policy is to stop, or too many steps were skipped.
        """
        losses, batches = torch.stack(self._losses), self._batches
        self._losses, self._batches = [], []
        bad = ~losses.isfinite()
        if not _anywhere(bad.any(), trainer):
            self._in_a_row = 0
            return
        optimizer.zero_grad()  # a parameter without a gradient is left as it is
        here = [batch for batch, worse in zip(batches, bad.tolist(), strict=True) if worse]
        names = ", ".join(name for batch in here for name in batch["name"]) or "another process's"
        fault = f"the loss is {losses[bad][:1].sum().item()} at step {trainer.global_step}"
        where = self._keep(here, trainer)
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self.policy == "stop" or self._in_a_row >= IN_A_ROW:
            steps = "" if self.policy == "stop" else f", the {IN_A_ROW}th in a row"
            raise ProofError(
                f"{fault}{steps} (images: {names}).\n"
                f"The weights are those of before it{where}.\n{REPAIR}"
            )
        torch._foreach_copy_(_statistics(pl_module), self._statistics)
        _note(f"{fault}: skipped ({names}{where})")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to write weights that are no numbers over good ones.

        Raises:
            ProofError: there are some.
        """
        floats = (t for t in pl_module.state_dict().values() if t.is_floating_point())
        if not all(bool(tensor.isfinite().all()) for tensor in floats):
            raise ProofError(
                f"the weights are not finite at step {trainer.global_step}: they were not saved, "
                f"the checkpoint before stays.\n{REPAIR}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how many batches held nothing to learn from, and how many steps were skipped."""
        empty = int(self._empty or 0)
        notes = [f"{empty} batches of this epoch held only ignored pixels"] * (empty > 0)
        notes += [f"{self.skipped} steps without a finite loss were skipped"] * (self.skipped > 0)
        for note in notes:
            _note(note)
        self._empty, self.skipped = None, 0

    def _keep(self, batches: list[dict[str, Any]], trainer: pl.Trainer) -> str:
        """Write the first few bad batches; return where."""
        folder = Path(trainer.default_root_dir) / "bad_batches"
        for batch in batches:
            if self._kept == KEPT_BATCHES:
                break
            self._kept += 1
            stem = f"step{trainer.global_step}-{trainer.global_rank}-{self._kept}"
            tensors = {key: batch[key].cpu() for key in ("image", "mask")}
            position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            with replacing(folder / f"{stem}.pt") as partial:
                torch.save({**tensors, "name": list(batch["name"]), **position}, partial)
            for index, (image, mask) in enumerate(zip(*tensors.values(), strict=True)):
                array = image.permute(1, 2, 0).numpy()
                Image.fromarray(array).save(folder / f"{stem}-image{index}.png")
                Image.fromarray(mask.byte().numpy()).save(folder / f"{stem}-mask{index}.png")
        return f"; the batch is kept in {folder}" if batches else ""


@contextmanager
def enough_values() -> Iterator[None]:
    """Say what to do where batch norm gets a single value per channel.

    Raises:
        ConfigError: it did.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "batch norm cannot normalise a single value: the smallest feature map of this crop has "
            "one pixel, and the batch of a device one image.\n"
            "Enlarge data.crop_size beyond 32 pixels, or the batch of a device to 2 or more."
        ) from error


def _note(text: str) -> None:
    get_console().print(f"note: {text}", highlight=False, markup=False, soft_wrap=True)


def _statistics(module: nn.Module) -> list[Tensor]:
    """Return the buffers that a training step changes."""
    norms = (m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers()]


def _anywhere(flag: Tensor, trainer: pl.Trainer) -> bool:
    """Return whether a flag is set in any process."""
    if trainer.world_size == 1:
        return bool(flag)
    return bool(trainer.strategy.reduce(flag.float(), reduce_op="sum"))
