"""Data set plugin: dark blobs on noise, generated in `data.root` on first use."""

import cv2
import numpy as np

import hrseg
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.pairing import pair_files


@hrseg.data.register("blobs")
class Blobs(hrseg.data.SegmentationDataModule):
    """Images of 64x96 pixels with one blob each, `count` per split, below `root`."""

    class_names = ("background", "blob")

    def __init__(self, root: str, count: int = 8, **options) -> None:
        super().__init__(root, **options)
        self.count = count

    def prepare_data(self) -> None:
        for seed, split in enumerate(("train", "val")):
            rng, folder = np.random.default_rng(seed), self.root / split
            for part in ("images", "masks"):
                (folder / part).mkdir(parents=True, exist_ok=True)
            for name in (f"{index:04}.png" for index in range(self.count)):
                center, empty = rng.integers(16, 48, 2).tolist(), np.zeros((64, 96), np.uint8)
                blob = cv2.circle(empty, center, 14, 1, -1)
                image = rng.integers(128, 255, (64, 96, 3), np.uint8) // (1 + blob[..., None])
                cv2.imwrite(str(folder / "images" / name), image)
                cv2.imwrite(str(folder / "masks" / name), blob)

    def files(self, split: str) -> list:
        return pair_files(self.root / split / "images", self.root / split / "masks")

    def mask_reader(self) -> MaskReader:
        return MaskReader(id_table(2), "Remove the folder; the masks are generated again.")
