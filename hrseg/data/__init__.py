"""Data sets: LightningDataModules with plain arguments.

Batches are `{"image": uint8 RGB (B, 3, H, W), "mask": class ids (B, H, W), 255 = ignored, "name"}`,
with one image each for evaluation. `from_datasets` wraps any map-style dataset.

A new data set is a file in `datasets/`, a row in `DATASETS`, a model in
config/data_schema.py, and a config. Outside of this package it is a subclass of
`SegmentationDataModule` with the decorator `@hrseg.data.register("name")`.
"""

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.datasets.ade20k import ADE20K
from hrseg.data.datasets.camvid import CamVid
from hrseg.data.datasets.cityscapes import Cityscapes
from hrseg.data.datasets.cocostuff10k import COCOStuff10K
from hrseg.data.datasets.folder import Folder
from hrseg.data.datasets.lip import LIP
from hrseg.data.datasets.pascal_context import PascalContext
from hrseg.data.from_datasets import from_datasets
from hrseg.data.synthetic.dataset import Synthetic
from hrseg.utils.registry import Registry

DATASETS: Registry[type[SegmentationDataModule]] = Registry(
    "data",
    {
        "camvid": CamVid,
        "cityscapes": Cityscapes,
        "pascal_context": PascalContext,
        "lip": LIP,
        "ade20k": ADE20K,
        "cocostuff10k": COCOStuff10K,
        "synthetic": Synthetic,
        "folder": Folder,
    },
    given=["seed", "transform"],
)
register = DATASETS.register

__all__ = [
    "ADE20K", "DATASETS", "LIP", "COCOStuff10K", "CamVid", "Cityscapes", "Folder", "PascalContext",
    "SegmentationDataModule", "Synthetic", "from_datasets", "register",
]  # fmt: skip
