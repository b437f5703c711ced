"""Batch contract of SegmentationTask, checked before the batch goes to the device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrseg.data.masks import wrong_ids
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

CONTRACT = (
    'Expected: {"image": uint8 RGB (B, 3, H, W), "mask": class ids (B, H, W), 255 = ignored}; '
    '"name" is optional.\n'
    "Fix: hrseg.data.from_datasets(train, val, class_names=...) makes such batches."
)


def checked_batch(batch: Any, num_classes: int, training: bool) -> dict[str, Any]:
    """Return a batch that fulfils the contract, with names.

    Masks of a training batch have the size of the images; evaluation scores at the mask's size.

    Raises:
        DataError: another type, key, shape or dtype, or a class id out of range.
    """
    if not isinstance(batch, Mapping) or not {"image", "mask"} <= batch.keys():
        keys = f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise DataError(f"The batch is a {type(batch).__name__}{keys}.\n{CONTRACT}")
    image, mask = batch["image"], batch["mask"]
    check_images(image)
    if not isinstance(mask, Tensor) or mask.is_floating_point():
        raise DataError(f"The mask is {_described(mask)}.\n{CONTRACT}")
    same = mask.shape[-2:] == image.shape[-2:] or not training
    if mask.ndim != 3 or len(mask) != len(image) or not same:
        raise DataError(
            f"The mask is {_described(mask)}, the image {_described(image)}.\n{CONTRACT}"
        )
    # Elsewhere the host would wait for the device.
    if mask.is_cpu and (wrong := wrong_ids(mask.numpy(), num_classes)):
        raise DataError(
            f"A mask has the ids {', '.join(map(str, wrong))}.\n"
            f"Expected: 0..{num_classes - 1}, one per class name, or {IGNORE_INDEX} = ignored.\n"
            "Fix: map the ids in the dataset, or add the missing class names."
        )
    return {"name": [f"image {index}" for index in range(len(image))], **batch}


def check_images(image: Any) -> None:
    """Raise DataError for images other than uint8 (B, 3, H, W)."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3:
        last = isinstance(image, Tensor) and image.shape[-1] == 3
        hint = " (channels last: use image.permute(0, 3, 1, 2))" if last else ""
        raise DataError(f"The image is {_described(image)}{hint}.\n{CONTRACT}")
    if image.dtype != torch.uint8:
        raise DataError(
            f"The image is {_described(image)}.\n{CONTRACT}\n"
            "Leave out ToTensor and Normalize: hrseg normalises the images itself."
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__}"
