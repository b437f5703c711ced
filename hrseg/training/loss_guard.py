"""Guard against NaN and infinite losses: skip the step or stop, and save the batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from hrseg.errors import ConfigError, VerificationError
from hrseg.models.blocks import BATCH_NORMS
from hrseg.utils.console import note
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import replacing

Policy = Literal["stop", "skip"]
POLICIES: dict[str, Policy] = {"stop": "stop", "skip": "skip"}
IN_A_ROW = 10  # skipped steps after which training is over
KEPT_BATCHES = 3
NAMED = 8  # images of a message
SINGLE = (
    "batch norm cannot normalise a single value: the smallest feature map of this crop has one "
    "pixel, and the batch of a device one image.\n"
    "Enlarge data.crop_size beyond 32 pixels, or the batch of a device to 2 or more."
)
REPAIR = "Lower optimizer.lr, or add schedule.warmup_steps or trainer.gradient_clip_val."


class LossGuard(Callback):
    """Keeps a loss that is NaN or infinite from the weights, and from the checkpoints.

    The optimiser takes no step with it, nor with gradients that are no numbers. "stop" ends the
    run; "skip" goes on with the next batch, the batch norm statistics as they were, and counts.
    With a `folder` the batch is kept in its `bad_batches/`: the tensors, and pictures of the images
    and masks. Batches that hold nothing but ignored pixels, whose loss is 0, are counted as well.

    Losses and gradients are looked at once per step, after the backward pass, as float16's scaler
    does. Where there is one, infinite gradients are its business: it lowers its scale.
    """

    def __init__(self, policy: Policy = "stop", folder: Path | None = None) -> None:
        """Prepare the guard.

        Args:
            policy: "stop" or "skip".
            folder: where bad batches are kept; None: they are not.
        """
        self.policy, self.folder = policy, folder
        self.skipped = self._in_a_row = self._kept = 0
        self._losses: list[Tensor] = []
        self._batches: list[dict[str, Any]] = []
        self._statistics = torch.empty(0)
        self._empty: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what was skipped, the same in all processes, so that a resumed run counts on."""
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on."""
        self.skipped, self._in_a_row = int(state_dict["skipped"]), int(state_dict["in_a_row"])

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the batch, and under "skip" the statistics that its forward pass changes."""
        if not self._batches and self.policy == "skip":
            # One tensor: a copy of each of the hundreds of buffers would take as many kernels.
            self._statistics = torch.cat([b.flatten() for b in _statistics(pl_module)])
        self._batches.append(batch)
        empty = (batch["mask"] == IGNORE_INDEX).all().int()
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
            VerificationError: a loss is NaN or infinite, and the policy is to stop or too many
                steps in a row were skipped.
        """
        losses, batches = torch.stack(self._losses), self._batches
        self._losses, self._batches = [], []
        good = losses.isfinite().all()
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            good &= _gradient_norm(optimizer).isfinite()
        if not _anywhere(~good, trainer):
            self._in_a_row = 0
            return
        optimizer.zero_grad()  # a parameter without a gradient is left as it is
        fault, here = _blame(losses, batches, trainer)
        where = self._keep(here, trainer)
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self.policy == "stop" or self._in_a_row >= IN_A_ROW:
            steps = "" if self.policy == "stop" else f", the {IN_A_ROW}th in a row"
            raise VerificationError(
                f"{fault}{steps}.\nThe weights are those of before it{where}.\n{REPAIR}"
            )
        buffers = _statistics(pl_module)
        parts = torch.split(self._statistics, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
        note(f"{fault}: skipped{where}")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Refuse to write weights that are no numbers over good ones.

        Raises:
            VerificationError: there are some.
        """
        floats = (t for t in pl_module.state_dict().values() if t.is_floating_point())
        if not all(bool(tensor.isfinite().all()) for tensor in floats):
            raise VerificationError(
                f"the weights are not finite at step {trainer.global_step}: they were not saved, "
                f"the checkpoint before stays.\n{REPAIR}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how many batches held nothing to learn from, and how many steps were skipped."""
        empty = torch.zeros((), device=pl_module.device) if self._empty is None else self._empty
        count = int(trainer.strategy.reduce(empty.float(), reduce_op="sum"))
        if count:
            note(f"{count} of this epoch's batches held only ignored pixels: their loss is 0")
        if self.skipped:
            note(f"steps of this epoch that were skipped, without a finite loss: {self.skipped}")
        self._empty, self.skipped = None, 0

    def _keep(self, batches: list[dict[str, Any]], trainer: pl.Trainer) -> str:
        """Write the first few bad batches; return the folder, for the message."""
        if self.folder is None:
            return ""
        folder = self.folder / "bad_batches"
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
        raise ConfigError(SINGLE) from error


def check_crop(crop_size: Sequence[int], images: int) -> None:
    """Refuse a crop whose smallest feature map batch norm cannot normalise.

    Args:
        crop_size: (height, width).
        images: that are normalised together.

    Raises:
        ConfigError: it has one pixel, of one image.
    """
    height, width = crop_size
    if images * -(-height // 32) * -(-width // 32) == 1:
        raise ConfigError(SINGLE)


def _statistics(module: nn.Module) -> list[Tensor]:
    """Return the buffers that a training step changes."""
    norms = (m for m in module.modules() if isinstance(m, BATCH_NORMS))
    return [buffer for norm in norms for buffer in norm.buffers()]


def _blame(
    losses: Tensor, batches: list[dict[str, Any]], trainer: pl.Trainer
) -> tuple[str, list[dict[str, Any]]]:
    """Return what is wrong, and of which images; and the batches of this process among them."""
    bad = ~losses.isfinite()
    here = [batch for batch, worse in zip(batches, bad.tolist(), strict=True) if worse]
    values = _of_all(losses[bad].tolist(), trainer)
    what = f"the loss is {values[0]}" if values else "the loss is finite, but not its gradients,"
    here = here if values else batches  # gradients are of all batches of the step
    names = _of_all([name for batch in here for name in batch["name"]], trainer)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    images = ", ".join(names[:NAMED]) + more
    return f"{what} at step {trainer.global_step} (images: {images})", here


def _gradient_norm(optimizer: Optimizer) -> Tensor:
    """Return the Euclidean norm of all gradients, which is finite where they are."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def _anywhere(flag: Tensor, trainer: pl.Trainer) -> bool:
    """Return whether a flag is set in any process."""
    count = flag.float()
    if trainer.world_size > 1:
        torch.distributed.all_reduce(count)
    return bool(count)


def _of_all(items: list[Any], trainer: pl.Trainer) -> list[Any]:
    """Return the items of all processes."""
    if trainer.world_size == 1:
        return items
    everywhere: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everywhere, items)
    return [item for of_one in everywhere for item in of_one]
