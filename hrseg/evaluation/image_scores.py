"""Callback that stores scores, masks and counts of each validated image."""

import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from hrseg.evaluation.results import ImageRecord, record, write_records
from hrseg.training.callbacks import ClassScores
from hrseg.visualize import indexed


class ImageScores(ClassScores):
    """ClassScores that keeps what each image came to, wherever it writes scores.json.

    Writes `images.json` and `masks/<name>.png`, the predicted train ids as palette PNGs.
    """

    def __init__(self, folder: str | Path, checkpoint: str | Path) -> None:
        """Write into `folder`; `checkpoint` is the file that the best scores belong to."""
        super().__init__(folder)
        self.folder: Path = Path(folder)
        self.checkpoint = Path(checkpoint).absolute()
        self.records: list[ImageRecord] = []

    @property
    def _fresh(self) -> Path:
        """Where masks wait until it is known whether they belong to the best scores."""
        return self.folder / ".masks"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last evaluation."""
        self.records = []
        self._fresh.mkdir(parents=True, exist_ok=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count one image and write its mask."""
        if trainer.sanity_checking:
            return
        pred = outputs["pred"].cpu().numpy()
        seen = record(batch["name"][0], pred, batch["mask"][0].cpu().numpy())
        # An image that only evens out the processes is all ignored; its mask is another's.
        if seen.counts:
            self.records.append(seen)
            palette = cast(list[list[int]], pl_module.palette)
            indexed(pred, palette).save(self._fresh / f"{seen.name}.png", compress_level=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the images of all processes, then show and write as ClassScores does."""
        if not trainer.sanity_checking and trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self.records)
            self.records = [seen for part in gathered for seen in part]
        super().on_validation_end(trainer, pl_module)
        if trainer.is_global_zero:
            shutil.rmtree(self._fresh, ignore_errors=True)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave no masks of a validation that did not come to its end."""
        if trainer.is_global_zero:
            shutil.rmtree(self._fresh, ignore_errors=True)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        """Write the scores and what they are made of."""
        masks = folder / "masks"
        shutil.rmtree(masks, ignore_errors=True)
        os.replace(self._fresh, masks)
        write_records(folder, self.records)
        super().write(folder, {**scores, "checkpoint": str(self.checkpoint)})
