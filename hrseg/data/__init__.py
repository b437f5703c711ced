"""Data sets: each is a LightningDataModule with plain arguments.

A new one is one file beside these, a row in `DATASETS`, a dataclass in schema.py and a config.
"""

from hrseg.data.camvid import CamVid
from hrseg.data.datamodule import SegmentationDataModule

DATASETS: dict[str, type[SegmentationDataModule]] = {"camvid": CamVid}

__all__ = ["DATASETS", "CamVid", "SegmentationDataModule"]
