"""Data set of synthetic street scenes, drawn on demand."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Unpack

import cv2

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.options import DataOptions
from hrseg.data.pairing import pair_files
from hrseg.data.synthetic.canvas import CLASS_NAMES
from hrseg.data.synthetic.scene import generate_scene
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

_log = logging.getLogger(__name__)
_VERSION = 1  # of the drawing: raise it when the same arguments draw other scenes


class Synthetic(SegmentationDataModule):
    """Street scenes with 9 classes, drawn once as PNG: `{images,masks}/{train,val}` below root.

    Args:
        root: folder to write to; existing scenes are reused.
        num_train: number of training images.
        num_val: number of validation images.
        image_size: (height, width) of a scene.
        options: see `DataOptions`.
    """

    class_names = CLASS_NAMES
    palette = (
        (70, 130, 180), (70, 70, 70), (128, 64, 128), (244, 35, 232), (107, 142, 35),
        (153, 153, 153), (220, 220, 0), (0, 0, 142), (220, 20, 60),
    )  # fmt: skip

    def __init__(
        self,
        root: str,
        num_train: int = 64,
        num_val: int = 16,
        image_size: Sequence[int] = (192, 256),
        **options: Unpack[DataOptions],
    ) -> None:
        """Store the arguments; `prepare_data` draws the scenes."""
        super().__init__(root, **options)
        self.num_scenes = {"train": num_train, "val": num_val}
        self.image_size = (image_size[0], image_size[1])

    def prepare_data(self) -> None:
        """Draw the scenes if they are missing; an interrupted run leaves no files.

        Raises:
            DataError: root contains other files, or cannot be written to.
        """
        wanted = {"version": _VERSION, **self.num_scenes, "image_size": list(self.image_size)}
        if self._has(wanted):
            return
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
            draft = TemporaryDirectory(prefix=f".{self.root.name}-", dir=self.root.parent)
        except OSError as error:
            raise DataError(
                f"The synthetic data set cannot be written to {self.root}: {error.strerror}.\n"
                "Expected: a writable folder. Fix: data.root=/path"
            ) from error
        _log.info("drawing %d scenes to %s", sum(self.num_scenes.values()), self.root)
        with draft:
            folder = Path(draft.name, "scenes")
            self._draw(folder)
            (folder / "scenes.json").write_text(json.dumps(wanted))
            if not self._has(wanted):  # another process may have finished first
                folder.replace(self.root)

    def files(self, split: str) -> Files:
        """Return the scenes of "train" or "val"; draw them first if they are missing."""
        self.prepare_data()
        return pair_files(self.root / "images" / split, self.root / "masks" / split)

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..8; 255 (the car with the camera) is ignored."""
        table = id_table(self.num_classes, ignore_ids=[IGNORE_INDEX])
        return MaskReader(table, f"Fix: delete {self.root}; hrseg draws it again.")

    def _has(self, wanted: dict[str, object]) -> bool:
        if not self.root.exists() or (self.root.is_dir() and not any(self.root.iterdir())):
            return False
        manifest = self.root / "scenes.json"
        content = json.loads(manifest.read_text()) if manifest.is_file() else "other files"
        if content == wanted:
            return True
        raise DataError(
            f"{self.root} contains {content}.\nExpected: {wanted}, or an empty folder.\n"
            "Fix: choose another data.root, or delete this folder if hrseg drew it."
        )

    def _draw(self, folder: Path) -> None:
        for seed, (split, count) in enumerate(self.num_scenes.items()):
            images, masks = folder / "images" / split, folder / "masks" / split
            images.mkdir(parents=True)
            masks.mkdir(parents=True)
            for index in range(count):
                image, mask = generate_scene(seed, index, self.image_size)
                cv2.imwrite(str(images / f"{index:04d}.png"), image[..., ::-1])
                cv2.imwrite(str(masks / f"{index:04d}.png"), mask)
        classes = {"classes": self.class_names, "palette": self.palette}
        (folder / "classes.json").write_text(json.dumps(classes, indent=1))
