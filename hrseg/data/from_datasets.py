"""DataModule for map-style datasets of (image, mask): torchvision, Hugging Face, custom."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Unpack

import numpy as np
import torch
from PIL import Image

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import SegmentationDataset, Transform
from hrseg.data.images import Array
from hrseg.data.masks import ReadMask, wrong_ids
from hrseg.data.options import DataOptions
from hrseg.data.transforms import Pipeline
from hrseg.data.workers import report_sample
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.validation import check_different

_NEEDS_FILES = ("cache", "manifest", "class_uniform", "on_error", "channels", "value_range")
_EXPECTED = (
    "Expected: (image, mask) or a dict with these keys. The image is uint8 RGB: a PIL image, an "
    "array (H, W, 3) or a tensor (3, H, W). The mask has class ids (H, W), 255 = ignore.\n"
    "Fix: remove ToTensor, Normalize and random transforms; hrseg does these."
)


class MapStyle(Protocol):
    """Dataset with a length whose items are (image, mask) or a dict with these keys."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_datasets(
    train: MapStyle,
    val: MapStyle,
    class_names: Sequence[str],
    palette: Sequence[tuple[int, int, int]] = (),
    flip_pairs: Sequence[tuple[int, int]] = (),
    transform: Pipeline | None = None,
    **options: Unpack[DataOptions],
) -> SegmentationDataModule:
    """Return a DataModule that trains on crops of `train` and validates on `val`.

    An item is (image, mask), or a dict with the keys "image" and "mask". An image is uint8 RGB: a
    PIL image, an array (H, W, 3) or a tensor (3, H, W). A mask has class ids: a PIL image, an
    array or a tensor (H, W); 255 is ignored. Scaling, crops, flips and resume work as for files.

    Args:
        train: dataset to train on, without random transforms.
        val: dataset to validate on; its images may differ in size.
        class_names: one name per class id.
        palette: RGB colour per class; default: distinct colours.
        flip_pairs: class ids that swap when an image is mirrored.
        transform: custom augmentation of the crops; see `SegmentationDataModule`.
        options: see `DataOptions`; these need files: `cache`, `manifest`, `class_uniform`,
            `on_error`, `channels` and `value_range`.

    Raises:
        ConfigError: an unknown option, or an option that needs files.

    Examples:
        >>> import numpy as np
        >>> import hrseg
        >>> pairs = [(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8))] * 4
        >>> data = hrseg.data.from_datasets(pairs, pairs, class_names=["road", "car"], batch_size=2)
        >>> data.num_classes
        2
    """
    if needs_files := [name for name in _NEEDS_FILES if name in options]:
        raise ConfigError(
            f"from_datasets: {needs_files[0]} needs image and mask files.\n"
            f"Expected: options other than {', '.join(_NEEDS_FILES)}.\n"
            "Fix: leave it out, or use hrseg.data.Folder."
        )
    return _Datasets(train, val, class_names, palette, flip_pairs, transform, options)


class _Datasets(SegmentationDataModule):
    def __init__(
        self,
        train: MapStyle,
        val: MapStyle,
        class_names: Sequence[str],
        palette: Sequence[tuple[int, int, int]],
        flip_pairs: Sequence[tuple[int, int]],
        transform: Pipeline | None,
        options: DataOptions,
    ) -> None:
        check_different(class_names)
        self.class_names = tuple(class_names)
        self.palette = tuple(palette)
        self.flip_pairs = tuple(flip_pairs)
        super().__init__("", transform, **options)
        self.sources = {self.train_split: train, self.val_split: val}

    def mask_reader(self) -> ReadMask:
        raise ConfigError("from_datasets: the data set has no mask files.")

    def dataset(self, split: str, train: bool = False) -> SegmentationDataset:
        if split not in self.sources:
            raise ConfigError(
                f"from_datasets: split {split!r} does not exist.\n"
                f"Expected: {', '.join(self.sources)}."
            )
        transform = self.transform if train else None
        return _Pairs(self.sources[split], split, self.num_classes, transform, self.seed)


class _Pairs(SegmentationDataset):
    """Map-style dataset with the items of `SegmentationDataset`."""

    def __init__(
        self,
        source: MapStyle,
        split: str,
        num_classes: int,
        transform: Transform | None,
        seed: int,
    ) -> None:
        super().__init__([], _no_file, transform, seed)
        self.source, self.split, self.num_classes = source, split, num_classes
        self.names = [f"{split}_{index:06d}" for index in range(len(source))]

    def __len__(self) -> int:
        return len(self.names)

    def label(self, index: int) -> str:
        return f"item {index} of the {self.split} dataset"

    def check_header(self, index: int) -> str:
        return ""  # an item has no header; the whole sample is read

    def read(self, index: int) -> tuple[Array, Array]:
        """Return image (H, W, 3) and mask (H, W) of one item, uint8.

        Raises:
            DataError: the item has another form than `from_datasets` describes.
        """
        report_sample(index)
        item, label = self.source[index], self.label(index)
        if isinstance(item, Mapping) and {"image", "mask"} <= item.keys():
            image, mask = item["image"], item["mask"]
        elif isinstance(item, (tuple, list)) and len(item) == 2:
            image, mask = item
        else:
            keys = (
                f" with the keys {', '.join(map(str, item))}" if isinstance(item, Mapping) else ""
            )
            raise DataError(f"{label} is a {type(item).__name__}{keys}.\n{_EXPECTED}")
        pixels, ids = _image(image, label), _mask(mask, label)
        if pixels.shape[:2] != ids.shape:
            raise DataError(
                f"{label}: the image is {pixels.shape[:2]}, the mask {ids.shape} (height, width).\n"
                "Expected: the same size."
            )
        if wrong := wrong_ids(ids, self.num_classes):
            raise DataError(
                f"{label}: the mask has the ids {', '.join(map(str, wrong))}.\n"
                f"Expected: 0..{self.num_classes - 1}, one per class name, or {IGNORE_INDEX}."
            )
        return pixels, ids.astype(np.uint8)


def _image(value: Any, label: str) -> Array:
    array = np.array(value.convert("RGB")) if isinstance(value, Image.Image) else np.asarray(value)
    if isinstance(value, torch.Tensor) and array.ndim == 3 and array.shape[0] == 3:
        array = array.transpose(1, 2, 0)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise DataError(f"{label}: the image is {array.dtype} {array.shape}.\n{_EXPECTED}")
    return np.ascontiguousarray(array)


def _mask(value: Any, label: str) -> Array:
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise DataError(f"{label}: the mask is {array.dtype} {array.shape}.\n{_EXPECTED}")
    return array


def _no_file(path: Path) -> Array:
    raise DataError(f"{path}: this dataset has no files.")
