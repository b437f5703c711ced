"""Unreadable images that training skips: count and list."""

import csv
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from hrseg.data.dataset import MAX_SKIPPED
from hrseg.errors import DataError
from hrseg.training.distributed import gather
from hrseg.utils.console import note
from hrseg.utils.files import write_bytes
from hrseg.utils.text import one_line


class SkippedFiles(Callback):
    """Count the unreadable images that `data.on_error: skip` skips.

    Args:
        folder: folder of `skipped.csv` with one row per image (split, name, error); None: no file.

    Raises:
        DataError: too many images are unreadable.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.faults: dict[str, dict[str, str]] = {"train": {}, "val": {}}
        self._listed = 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._count(batch, "train", trainer.train_dataloader)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any, **__: Any
    ) -> None:
        self._count(batch, "val", trainer.val_dataloaders)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        if trainer.sanity_checking:
            return
        rows = {
            (split, name): fault
            for faults_of in gather(trainer, self.faults)
            for split, faults in faults_of.items()
            for name, fault in faults.items()
        }
        if not trainer.is_global_zero or len(rows) == self._listed:
            return
        self._listed = len(rows)
        hint = ""
        if self.folder is not None:
            path, lines = self.folder / "skipped.csv", [(*key, rows[key]) for key in sorted(rows)]
            text = StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([("split", "image", "fault"), *lines])
            write_bytes(path, text.getvalue().encode(errors="replace"))
            hint = f", see {path}"
        note(f"unreadable images skipped: {len(rows)}{hint}")

    on_validation_end = on_train_epoch_end

    def state_dict(self) -> dict[str, Any]:
        return {"faults": {split: dict(faults) for split, faults in self.faults.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for split, faults in state_dict["faults"].items():
            self.faults[split].update(faults)

    def _count(self, batch: Any, split: str, loader: Any) -> None:
        faults = self.faults[split]
        for name, fault in zip(batch.get("name", ()), batch.get("fault", ()), strict=False):
            if not fault or name in faults:
                continue
            faults[name] = fault
            loaders = loader if isinstance(loader, list | tuple) else [loader]
            total = sum(len(part.dataset) for part in loaders)
            if len(faults) > MAX_SKIPPED * total:
                raise DataError(
                    f"{len(faults)} of {total} images could not be read; the last error: "
                    f"{one_line(fault.partition(chr(10))[0])}\n"
                    f"Expected: at most {100 * MAX_SKIPPED:.0f} % with data.on_error=skip. "
                    "Fix: `hrseg data check` lists all errors."
                )
