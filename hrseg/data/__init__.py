"""Data sets: each is a LightningDataModule with plain arguments.

A new one is one file beside these, a row in `DATASETS`, a dataclass in schema.py and a config.
"""

from hrseg.data.camvid import CamVid
from hrseg.data.cityscapes import Cityscapes
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.folder import Folder
from hrseg.data.lip import LIP
from hrseg.data.synthetic import Synthetic

DATASETS: dict[str, type[SegmentationDataModule]] = {
    "camvid": CamVid,
    "cityscapes": Cityscapes,
    "lip": LIP,
    "synthetic": Synthetic,
    "folder": Folder,
}

__all__ = [
    "DATASETS",
    "LIP",
    "CamVid",
    "Cityscapes",
    "Folder",
    "SegmentationDataModule",
    "Synthetic",
]
