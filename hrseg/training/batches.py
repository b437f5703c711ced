"""Batch validation for SegmentationTask, before the batch is moved to the device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrseg.data.masks import wrong_ids
from hrseg.errors import DataError
from hrseg.utils.channels import Channels
from hrseg.utils.constants import IGNORE_INDEX

CONTRACT = (
    'Expected: {"image": uint8 RGB (B, 3, H, W), "mask": class ids (B, H, W), 255 = ignored}; '
    '"name" is optional.\n'
    "Fix: hrseg.data.from_datasets(train, val, class_names=...) makes such batches."
)


def checked_batch(
    batch: Any, num_classes: int, training: bool, channels: Channels | None = None
) -> dict[str, Any]:
    """Return a valid batch, with default names if it has none.

    Args:
        batch: see CONTRACT.
        num_classes: number of valid class ids.
        training: require masks of the images' size; evaluation scores at the size of the masks.
        channels: of the images; None: RGB uint8.

    Raises:
        DataError: the batch has an invalid type, key, shape, dtype or class id.
    """
    if not isinstance(batch, Mapping) or not {"image", "mask"} <= batch.keys():
        keys = f" with the keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
        raise DataError(f"The batch is a {type(batch).__name__}{keys}.\n{CONTRACT}")
    image, mask = batch["image"], batch["mask"]
    check_images(image, channels)
    if not isinstance(mask, Tensor) or mask.is_floating_point():
        raise DataError(f"The mask is {_described(mask)}.\n{CONTRACT}")
    same_size = mask.shape[-2:] == image.shape[-2:] or not training
    if mask.ndim != 3 or len(mask) != len(image) or not same_size:
        raise DataError(
            f"The mask is {_described(mask)}, but the image is {_described(image)}.\n{CONTRACT}"
        )
    # Only on the CPU: on other devices this check would wait for the device.
    if mask.is_cpu and (invalid := wrong_ids(mask.numpy(), num_classes)):
        raise DataError(
            f"A mask contains the invalid ids {', '.join(map(str, invalid))}.\n"
            f"Expected: 0..{num_classes - 1}, one id per class name, or {IGNORE_INDEX} = ignored.\n"
            "Fix: map the ids in the dataset, or add the missing class names."
        )
    return {"name": [f"image {index}" for index in range(len(image))], **batch}


def check_images(image: Any, channels: Channels | None = None) -> None:
    """Raise DataError for images other than uint8 (B, 3, H, W), or (B, N, H, W) of `channels`."""
    count = channels.count if channels else 3
    contract = CONTRACT
    if channels:
        contract = CONTRACT.replace("uint8 RGB (B, 3,", f"{channels.dtype} (B, {count},")
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != count:
        channels_last = isinstance(image, Tensor) and image.shape[-1] == count
        hint = " (channels last: use image.permute(0, 3, 1, 2))" if channels_last else ""
        raise DataError(f"The image is {_described(image)}{hint}.\n{contract}")
    if image.dtype != getattr(torch, channels.dtype if channels else "uint8"):
        raise DataError(
            f"The image is {_described(image)}.\n{contract}\n"
            "Remove ToTensor and Normalize, because hrseg normalises the images itself."
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return f"a {type(value).__name__}"
