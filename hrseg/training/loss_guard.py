"""NaN and infinite losses: skip the step or stop, and save the batch."""

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
from hrseg.utils.channels import Channels, as_picture
from hrseg.utils.console import note
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import replacing
from hrseg.utils.text import some

Policy = Literal["stop", "skip"]
POLICIES: dict[str, Policy] = {"stop": "stop", "skip": "skip"}
MAX_SKIPS = 10  # consecutive skipped steps that stop the training
SAVED_BATCHES = 3
MAX_NAMES = 8  # images named in a message
FIX = (
    "Expected: a finite loss and finite gradients. "
    "Fix: lower optimizer.lr, or add schedule.warmup_steps or trainer.gradient_clip_val"
)


class LossGuard(Callback):
    """Protect weights and checkpoints from NaN and infinite losses and gradients.

    With such a loss or gradient the optimizer makes no step. The callback also counts batches
    that contain only ignored pixels, whose loss is 0. A float16 scaler handles infinite gradients
    itself by lowering its scale.

    Args:
        policy: "stop" ends the run; "skip" restores the batch norm statistics and continues with
            the next batch.
        folder: the first bad batches are saved in its subfolder `bad_batches/` as tensors and
            pictures; None: they are not saved.

    Raises:
        VerificationError: by "stop", after MAX_SKIPS consecutive skips, or at a checkpoint with NaN
            or infinite weights.
    """

    def __init__(self, policy: Policy = "stop", folder: Path | None = None) -> None:
        self.policy, self.folder = policy, folder
        self.skipped = self._consecutive = self._saved = 0
        self._losses: list[Tensor] = []
        self._batches: list[dict[str, Any]] = []
        self._statistics = torch.empty(0)
        self._empty = torch.zeros(())

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: nn.Module, batch: Any, *_: Any, **__: Any
    ) -> None:
        if not self._batches and self.policy == "skip":
            # One tensor, because copies of hundreds of buffers need as many kernels.
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
            self._consecutive = 0
            return
        optimizer.zero_grad()  # the optimizer skips parameters without a gradient
        problem, own = _problem(losses, batches, trainer)
        saved = self._save(own, trainer)
        self.skipped, self._consecutive = self.skipped + 1, self._consecutive + 1
        if self.policy == "stop" or self._consecutive >= MAX_SKIPS:
            count = "" if self.policy == "stop" else f", the {MAX_SKIPS}th consecutive step"
            raise VerificationError(
                f"The {problem}{count}.\nThis step did not change the weights{saved}.\n{FIX}"
            )
        buffers = _statistics(pl_module)
        parts = torch.split(self._statistics, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
        note(f"the {problem}: step skipped{saved}")

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        floats = (t for t in pl_module.state_dict().values() if t.is_floating_point())
        if not all(bool(tensor.isfinite().all()) for tensor in floats):
            raise VerificationError(
                f"The weights are NaN or infinite at step {trainer.global_step}: they were not "
                f"saved.\nThe previous checkpoint is unchanged.\n{FIX}"
            )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        empty = self._empty.to(pl_module.device)
        if count := int(trainer.strategy.reduce(empty, reduce_op="sum")):
            note(f"{count} of this epoch's batches contain only ignored pixels; their loss is 0")
        if self.skipped:
            note(f"steps of this epoch skipped for NaN or infinite losses: {self.skipped}")
        self._empty, self.skipped = torch.zeros(()), 0

    def _save(self, batches: list[dict[str, Any]], trainer: pl.Trainer) -> str:
        if self.folder is None or not batches:
            return ""
        folder = self.folder / "bad_batches"
        for batch in batches[: SAVED_BATCHES - self._saved]:
            self._saved += 1
            stem = f"step{trainer.global_step}-{trainer.global_rank}-{self._saved}"
            tensors = {key: batch[key].cpu() for key in ("image", "mask")}
            position = {"epoch": trainer.current_epoch, "step": trainer.global_step}
            with replacing(folder / f"{stem}.pt") as partial:
                torch.save({**tensors, "name": list(batch["name"]), **position}, partial)
            for index, (image, mask) in enumerate(zip(*tensors.values(), strict=True)):
                array = as_picture(image.permute(1, 2, 0).numpy(), _channels(trainer))
                Image.fromarray(array).save(folder / f"{stem}-image{index}.png")
                Image.fromarray(mask.byte().numpy()).save(folder / f"{stem}-mask{index}.png")
        return f"; the batch is saved in {folder}"


def _channels(trainer: pl.Trainer) -> Channels | None:
    normalize = getattr(trainer.lightning_module, "normalize", None)
    return getattr(normalize, "channels", None)


def _statistics(module: nn.Module) -> list[Tensor]:
    norms = (m for m in module.modules() if isinstance(m, BATCH_NORMS))
    return [buffer for norm in norms for buffer in norm.buffers()]


def _problem(
    losses: Tensor, batches: list[dict[str, Any]], trainer: pl.Trainer
) -> tuple[str, list[dict[str, Any]]]:
    """Return a message with the names of the images, and the bad batches of this process."""
    bad = ~losses.isfinite()
    own = [batch for batch, is_bad in zip(batches, bad.tolist(), strict=True) if is_bad]
    values = list(chain.from_iterable(gather(trainer, losses[bad].tolist())))
    problem = f"loss is {values[0]}" if values else "loss is finite, but a gradient is not,"
    own = own if values else batches  # gradients belong to all batches of the step
    own_names = [name for batch in own for name in batch["name"]]
    names = list(chain.from_iterable(gather(trainer, own_names)))
    images = some(names, MAX_NAMES)
    return f"{problem} at step {trainer.global_step} (images: {images})", own
