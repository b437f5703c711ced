"""Submission for a benchmark server: masks of raw ids, their verification, and the zip file."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.callbacks import Callback

from hrseg.errors import VerificationError
from hrseg.utils.console import note
from hrseg.utils.files import replacing
from hrseg.utils.text import some


class Submission(Callback):
    """Callback that writes the predictions of a test as masks of raw ids, checks and zips them.

    It writes `<folder>/masks/<name>.png`, 8-bit greyscale, and `<folder>/submission.zip`.

    Args:
        folder: to write to.
        images: the images of the test.
        names: their names, the stems of the masks.
        raw_ids: the raw id of each class.
    """

    def __init__(
        self, folder: Path, images: Sequence[Path], names: Sequence[str], raw_ids: Sequence[int]
    ) -> None:
        self.folder, self.images, self.names = folder, images, names
        self.raw_ids = np.array(raw_ids, np.uint8)
        self.masks = folder / "masks"

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.masks = trainer.strategy.broadcast(self.masks)  # one folder for all processes
        self.masks.mkdir(parents=True, exist_ok=True)

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        mask = Image.fromarray(self.raw_ids[outputs["pred"].cpu().numpy()])
        path = self.masks / f"{batch['name'][0]}.png"
        # The sampler of several processes repeats images, so two may write the same file.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        mask.save(partial, format="PNG")
        os.replace(partial, path)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.strategy.barrier()
        if not trainer.is_global_zero:
            return
        if sum(trainer.num_test_batches) * trainer.world_size < len(self.images):
            note("not all images were predicted; submission.zip was not written")
            return
        check_submission(self.masks, self.images, self.names, self.raw_ids.tolist())
        write_zip(self.masks, self.folder / "submission.zip")


def check_submission(
    masks: Path, images: Sequence[Path], names: Sequence[str], raw_ids: Sequence[int]
) -> None:
    """Check that a folder contains exactly the mask `<name>.png` of each image, with valid ids.

    Args:
        masks: the folder.
        images: the images of the test.
        names: their names.
        raw_ids: the valid ids.

    Raises:
        VerificationError: a mask is missing or superfluous, or has an invalid size, type or id.
    """
    expected = {f"{name}.png": image for name, image in zip(names, images, strict=True)}
    present = {path.name for path in masks.iterdir()}
    faults = [f"{name} is missing" for name in sorted(expected.keys() - present)]
    faults += [f"{name} is not a test image" for name in sorted(present - expected.keys())]
    for name, image in expected.items():
        if name in present:
            faults += _mask_faults(masks / name, image, raw_ids)
    if faults:
        raise VerificationError(
            f"{masks} is not a valid submission: {some(faults, 2)}.\n"
            "Expected: a greyscale mask of valid ids for every test image. Fix: hrseg test"
        )


def write_zip(masks: Path, path: Path) -> None:
    """Zip the PNG files of a folder atomically, without further compression."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for mask in sorted(masks.glob("*.png")):
            archive.write(mask, mask.name)


def _mask_faults(path: Path, image_path: Path, raw_ids: Sequence[int]) -> list[str]:
    with Image.open(path) as mask, Image.open(image_path) as image:
        if mask.mode != "L" or mask.size != image.size:
            return [f"{path.name} is {_format(mask)}, expected {_format(image, 'L')}"]
        invalid = np.setdiff1d(np.asarray(mask), raw_ids)
    return [f"{path.name} has the invalid ids {invalid[:5].tolist()}"] if len(invalid) else []


def _format(image: Image.Image, mode: str | None = None) -> str:
    return f"{mode or image.mode} {image.width}x{image.height}"
