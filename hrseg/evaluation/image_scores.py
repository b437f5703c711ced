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
    """ClassScores that also stores the result of each image, whenever it writes scores.json.

    Writes `images.json` and `masks/<name>.png`, the predicted train ids as palette PNGs.
    """

    def __init__(self, folder: str | Path, checkpoint: str | Path) -> None:
        """Write into `folder`; `checkpoint` is the file that the best scores belong to."""
        super().__init__(folder)
        self.folder: Path = Path(folder)
        self.checkpoint = Path(checkpoint).absolute()
        self.records: list[ImageRecord] = []
        self._fresh = self.folder / ".masks"  # until it is known whether the scores are the best

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
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
        if trainer.sanity_checking:
            return
        palette = cast(list[list[int]], pl_module.palette)
        for name, ids, mask in zip(batch["name"], outputs["preds"], batch["mask"], strict=True):
            pred = ids.cpu().numpy()
            seen = record(name, pred, mask.cpu().numpy())
            # An image that only evens out the processes is all ignored; another has its mask.
            if seen.counts:
                self.records.append(seen)
                indexed(pred, palette).save(self._fresh / f"{seen.name}.png", compress_level=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self.records)
            self.records = [seen for part in gathered for seen in part]
        super().on_validation_end(trainer, pl_module)
        self._remove_fresh(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._remove_fresh(trainer)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        """Write the scores with the masks and the counts of the images."""
        masks = folder / "masks"
        shutil.rmtree(masks, ignore_errors=True)
        os.replace(self._fresh, masks)
        write_records(folder, self.records)
        super().write(folder, {**scores, "checkpoint": str(self.checkpoint)})

    def _remove_fresh(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            shutil.rmtree(self._fresh, ignore_errors=True)
