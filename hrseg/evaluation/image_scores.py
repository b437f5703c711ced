"""Callback that stores the mask and the pixel counts of each validated image."""

import os
import shutil
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
import torch

from hrseg.evaluation.results import ImageRecord, make_record, write_records
from hrseg.training.callbacks import ClassScores
from hrseg.visualize import indexed


class ImageScores(ClassScores):
    """ClassScores that also writes `images.json` and `masks/` whenever it writes scores.json.

    `masks/<name>.png` contains the predicted train ids of an image as a palette PNG.

    Args:
        folder: to write to.
        checkpoint: the file of the weights with the best scores, recorded in scores.json.
    """

    def __init__(self, folder: str | Path, checkpoint: str | Path) -> None:
        super().__init__(folder)
        self.folder: Path = Path(folder)
        self.checkpoint = Path(checkpoint).absolute()
        self.records: list[ImageRecord] = []
        self._new_masks = self.folder / ".masks"  # renamed if the scores are the best so far

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.records = []
        self._new_masks.mkdir(parents=True, exist_ok=True)

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
            record = make_record(name, pred, mask.cpu().numpy())
            # The sampler of several processes repeats images with all pixels ignored.
            if record.counts:
                self.records.append(record)
                path = self._new_masks / f"{record.name}.png"
                indexed(pred, palette).save(path, compress_level=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self.records)
            self.records = [record for records in gathered for record in records]
        super().on_validation_end(trainer, pl_module)
        self._remove_new_masks(trainer)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._remove_new_masks(trainer)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        masks = folder / "masks"
        shutil.rmtree(masks, ignore_errors=True)
        os.replace(self._new_masks, masks)
        write_records(folder, self.records)
        super().write(folder, {**scores, "checkpoint": str(self.checkpoint)})

    def _remove_new_masks(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            shutil.rmtree(self._new_masks, ignore_errors=True)
