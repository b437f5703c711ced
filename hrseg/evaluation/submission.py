"""Submission for a benchmark server: masks written, checked and zipped."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback
from rich import get_console

from hrseg.errors import VerificationError
from hrseg.utils.files import replacing


class Submission(Callback):
    """Write each prediction of a test as a mask of raw ids; at the end check all and zip them.

    Files are `<folder>/masks/<stem of the image>.png`, 8-bit grey, and `<folder>/submission.zip`.
    """

    def __init__(
        self, folder: Path, images: Sequence[Path], names: Sequence[str], raw_ids: Sequence[int]
    ) -> None:
        """Take the images of the test, their names, and the raw id of each class."""
        self.folder, self.images, self.names = folder, images, names
        self.raw_ids = np.array(raw_ids, np.uint8)
        self.masks = folder / "masks"

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.masks = trainer.strategy.broadcast(self.masks)  # one folder for all processes
        self.masks.mkdir(parents=True, exist_ok=True)

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        mask = Image.fromarray(self.raw_ids[outputs["pred"].cpu().numpy()])
        path = self.masks / f"{batch['name'][0]}.png"
        # Two processes may predict the same image, to even out their shares.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        mask.save(partial, format="PNG")
        os.replace(partial, path)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        if sum(trainer.num_test_batches) * trainer.world_size < len(self.images):
            get_console().print("note: not all images were predicted, so nothing is zipped")
            return
        check_submission(self.masks, self.images, self.names, self.raw_ids.tolist())
        write_zip(self.masks, self.folder / "submission.zip")


def check_submission(
    masks: Path, images: Sequence[Path], names: Sequence[str], raw_ids: Sequence[int]
) -> None:
    """Verify that a folder has the mask `<name>.png` of each image, with known ids.

    Raises:
        VerificationError: a mask is missing or superfluous, or has another size, type or id.
    """
    expected = {f"{name}.png": image for name, image in zip(names, images, strict=True)}
    present = {path.name for path in masks.iterdir()}
    faults = [f"{name}: missing" for name in sorted(expected.keys() - present)]
    faults += [
        f"{name}: not the name of a test image" for name in sorted(present - expected.keys())
    ]
    for name, image in expected.items():
        if name in present:
            faults += _faults(masks / name, image, raw_ids)
    if faults:
        raise VerificationError(
            f"the submission in {masks} does not suit the server, {len(faults)} faults:\n"
            + "\n".join(faults[:3])
        )


def write_zip(masks: Path, path: Path) -> None:
    """Zip the PNG files of a folder, atomically; PNGs are compressed already."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for mask in sorted(masks.glob("*.png")):
            archive.write(mask, mask.name)


def _faults(mask: Path, image: Path, raw_ids: Sequence[int]) -> list[str]:
    with Image.open(mask) as opened, Image.open(image) as truth:
        if opened.mode != "L" or opened.size != truth.size:
            wrong = f"{opened.mode} of {opened.size}, expected L of {truth.size} (width, height)"
            return [f"{mask.name}: {wrong}"]
        others = np.setdiff1d(np.asarray(opened), raw_ids)
    return [f"{mask.name}: ids {others[:5].tolist()} are not classes"] if len(others) else []
