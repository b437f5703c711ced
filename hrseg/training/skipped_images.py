"""Callback that counts and lists unreadable images that training skips."""

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from hrseg.data.dataset import MOST
from hrseg.errors import DataError
from hrseg.utils.console import note
from hrseg.utils.files import write_bytes
from hrseg.utils.text import one_line


class SkippedFiles(Callback):
    """Count the images that `data.on_error: skip` skips; too many are an error.

    `skipped.csv` in the `folder` lists them, a row per image: split, name and error.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Start with an empty list, written into `folder` if there is one."""
        self.folder = folder
        self.faults: dict[str, dict[str, str]] = {"train": {}, "val": {}}
        self._said = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._note(batch, "train", trainer.train_dataloader)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._note(batch, "val", trainer.val_dataloaders)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._say(trainer)

    on_validation_end = on_train_epoch_end

    def state_dict(self) -> dict[str, Any]:
        return {"faults": {split: dict(found) for split, found in self.faults.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for split, found in state_dict["faults"].items():
            self.faults[split].update(found)

    def _note(self, batch: Any, split: str, loader: Any) -> None:
        found = self.faults[split]
        for name, fault in zip(batch["name"], batch.get("fault", ()), strict=False):
            if not fault or name in found:
                continue
            found[name] = fault
            loaders = loader if isinstance(loader, list | tuple) else [loader]
            total = sum(len(part.dataset) for part in loaders)
            if len(found) > MOST * total:
                raise DataError(
                    f"{len(found)} of {total} images could not be read, the last: "
                    f"{one_line(fault.partition(chr(10))[0])}\nThat is more than "
                    f"data.on_error=skip passes over ({100 * MOST:.0f} %). `hrseg data check` "
                    "lists them all."
                )

    def _say(self, trainer: pl.Trainer) -> None:
        if trainer.sanity_checking:
            return
        parts: list[Any] = [self.faults]
        if trainer.world_size > 1:
            parts = [None] * trainer.world_size
            torch.distributed.all_gather_object(parts, self.faults)
        rows = {
            (split, name): fault
            for part in parts
            for split, faults in part.items()
            for name, fault in faults.items()
        }
        if not trainer.is_global_zero or len(rows) == self._said:
            return
        self._said = len(rows)
        where = ""
        if self.folder is not None:
            path = self.folder / "skipped.csv"
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(("split", "image", "fault"))
            writer.writerows((*key, fault) for key, fault in sorted(rows.items()))
            write_bytes(path, text.getvalue().encode("utf-8", "replace"))
            where = f", see {path}"
        note(f"images that could not be read and were left out: {len(rows)}{where}")
