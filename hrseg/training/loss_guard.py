"""Guard against NaN and infinite losses: skip the step or stop, and save the batch."""

from itertools import chain
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from hrseg.errors import VerificationError
from hrseg.models.blocks import BATCH_NORMS
from hrseg.training.distributed import gather
from hrseg.utils.console import note
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import replacing

Policy = Literal["stop", "skip"]
POLICIES: dict[str, Policy] = {"stop": "stop", "skip": "skip"}
IN_A_ROW = 10  # skipped steps that end the training
KEPT_BATCHES = 3
NAMED = 8  # images in a message
REPAIR = "Lower optimizer.lr, or add schedule.warmup_steps or trainer.gradient_clip_val."


class LossGuard(Callback):
    """Keep NaN and infinite losses from the weights, and from the checkpoints.

    The optimiser takes no step with such a loss, nor with such gradients. The policy "stop" ends
    the run; "skip" continues with the next batch and the earlier batch norm statistics. The first
    bad batches are saved in `bad_batches/` of `folder`, if there is one: the tensors, and pictures.
    Batches of only ignored pixels, whose loss is 0, are counted.

    A scaler of float16 handles infinite gradients itself: it lowers its scale.
    """

    def __init__(self, policy: Policy = "stop", folder: Path | None = None) -> None:
        self.policy, self.folder = policy, folder
        self.skipped = self._in_a_row = self._kept = 0
        self._losses: list[Tensor] = []
        self._batches: list[dict[str, Any]] = []
        self._statistics = torch.empty(0)
        self._empty = torch.zeros(())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: nn.Module, batch: Any, *_: Any, **__: Any
    ) -> None:
        if not self._batches and self.policy == "skip":
            # One tensor: a copy of each of the hundreds of buffers would take as many kernels.
            self._statistics = torch.cat([b.flatten() for b in _statistics(pl_module)])
        self._batches.append(batch)
        mask = batch["mask"]
        self._empty = self._empty.to(mask.device) + (mask == IGNORE_INDEX).all()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: Any, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        losses, batches = torch.stack(self._losses), self._batches
        self._losses, self._batches = [], []
        good = losses.isfinite().all()
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            gradients = [p.grad for p in parameters if p.grad is not None]
            good &= nn.utils.get_total_norm(gradients).isfinite()
        bad = (~good).float()
        if trainer.world_size > 1:
            torch.distributed.all_reduce(bad)
        if not bad:
            self._in_a_row = 0
            return
        optimizer.zero_grad()  # a parameter without a gradient is left as it is
        problem, own = _blame(losses, batches, trainer)
        kept = self._keep(own, trainer)
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        if self.policy == "stop" or self._in_a_row >= IN_A_ROW:
            steps = "" if self.policy == "stop" else f", the {IN_A_ROW}th in a row"
            raise VerificationError(
                f"{problem}{steps}.\nThe weights are those of before it{kept}.\n{REPAIR}"
            )
        buffers = _statistics(pl_module)
        parts = torch.split(self._statistics, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
        note(f"{problem}: skipped{kept}")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        floats = (t for t in pl_module.state_dict().values() if t.is_floating_point())
        if not all(bool(tensor.isfinite().all()) for tensor in floats):
            raise VerificationError(
                f"the weights are not finite at step {trainer.global_step}: they were not saved, "
                f"the checkpoint before stays.\n{REPAIR}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        empty = self._empty.to(pl_module.device)
        if count := int(trainer.strategy.reduce(empty, reduce_op="sum")):
            note(f"{count} of this epoch's batches held only ignored pixels: their loss is 0")
        if self.skipped:
            note(f"skipped steps of this epoch, without a finite loss: {self.skipped}")
        self._empty, self.skipped = torch.zeros(()), 0

    def _keep(self, batches: list[dict[str, Any]], trainer: pl.Trainer) -> str:
        if self.folder is None or not batches:
            return ""
        folder = self.folder / "bad_batches"
        for batch in batches[: KEPT_BATCHES - self._kept]:
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
        return f"; the batch is kept in {folder}"


def _statistics(module: nn.Module) -> list[Tensor]:
    norms = (m for m in module.modules() if isinstance(m, BATCH_NORMS))
    return [buffer for norm in norms for buffer in norm.buffers()]


def _blame(
    losses: Tensor, batches: list[dict[str, Any]], trainer: pl.Trainer
) -> tuple[str, list[dict[str, Any]]]:
    """Return the problem with the names of its images, and the bad batches of this process."""
    bad = ~losses.isfinite()
    own = [batch for batch, is_bad in zip(batches, bad.tolist(), strict=True) if is_bad]
    values = list(chain.from_iterable(gather(trainer, losses[bad].tolist())))
    problem = f"the loss is {values[0]}" if values else "the loss is finite, but not its gradients,"
    own = own if values else batches  # gradients are of all batches of the step
    named = [name for batch in own for name in batch["name"]]
    names = list(chain.from_iterable(gather(trainer, named)))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    images = ", ".join(names[:NAMED]) + more
    return f"{problem} at step {trainer.global_step} (images: {images})", own
