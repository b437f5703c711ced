"""Random transforms of training crops by name (`data.augment`), and the colour jitter.

This is the only module that imports albumentations.
"""

import os
import random
from collections.abc import Callable, Sequence
from typing import Any

# Without this, albumentations asks a package registry for updates at import.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np

from hrseg.data.images import Array
from hrseg.errors import ConfigError
from hrseg.utils.augmentations import NEEDS_SQUARE, Augmentation
from hrseg.utils.constants import IGNORE_INDEX


class _VerticalFlip(A.VerticalFlip):  # type: ignore[misc]
    """Vertical flip that swaps the ids of mirrored classes, such as left and right arm."""

    mirrored_ids: Array  # (256,), new id by id

    def apply_to_mask(self, mask: Array, **params: Any) -> Array:
        """Return the mirrored mask (h, w)."""
        return np.asarray(cv2.LUT(super().apply_to_mask(mask, **params), self.mirrored_ids))


_MAKERS: dict[str, Callable[[Any], A.BasicTransform]] = {
    "rotate90": lambda part: A.RandomRotate90(p=part.p),
    "vflip": lambda part: _VerticalFlip(p=part.p),
    "rotate": lambda part: A.Rotate(
        (-part.limit, part.limit), fill=0, fill_mask=IGNORE_INDEX, p=part.p
    ),
    # The side of the square has to be odd.
    "blur": lambda part: A.Blur((3, part.limit - 1 + part.limit % 2), p=part.p),
    "noise": lambda part: A.GaussNoise((0, part.limit), p=part.p),
    "brightness_contrast": lambda part: A.RandomBrightnessContrast(
        part.brightness, part.contrast, p=part.p
    ),
    # OpenCV's unit of 8-bit hues is 2 degrees.
    "hue": lambda part: A.HueSaturationValue(part.limit / 2, (0, 0), (0, 0), p=part.p),
    "gamma": lambda part: A.RandomGamma((100 - 100 * part.limit, 100 + 100 * part.limit), p=part.p),
    "shadow": lambda part: A.RandomShadow(
        (0, 0, 1, 1), (1, 1), shadow_intensity_range=(0, part.limit), p=part.p
    ),
    "coarse_dropout": lambda part: A.CoarseDropout(
        (1, part.holes),
        (part.size / 4, part.size),
        (part.size / 4, part.size),
        fill=0,
        fill_mask=IGNORE_INDEX,
        p=part.p,
    ),
}


class Augmentations(A.Compose):  # type: ignore[misc]
    """The transforms of `data.augment`, one after the other.

    Args:
        parts: names with options; see `hrseg.utils.augmentations`.
        crop_size: (height, width) of the crops.
        mirrored_ids: new class id by id (256,) in mirrored masks.

    Raises:
        ConfigError: a transform needs a square crop, but the crop is not.
    """

    def __init__(
        self, parts: Sequence[Augmentation], crop_size: tuple[int, int], mirrored_ids: Array
    ) -> None:
        height, width = crop_size
        for part in parts:
            if part.name in NEEDS_SQUARE and height != width:
                raise ConfigError(
                    f"data.augment: {part.name} would turn crops of {height}x{width} into "
                    f"{width}x{height}.\nExpected: a square data.crop_size, e.g. [256, 256]. "
                    f"Fix: change data.crop_size, or remove {part.name}."
                )
        transforms = [_MAKERS[part.name](part) for part in parts]
        for transform in transforms:
            if isinstance(transform, _VerticalFlip):
                transform.mirrored_ids = mirrored_ids
        super().__init__(transforms)

    def __call__(self, *, image: Array, mask: Array) -> dict[str, Any]:
        """Return image (h, w, channels), uint8 or uint16, and mask (h, w)."""
        if image.dtype == np.uint8:
            return dict(super().__call__(image=image, mask=mask))
        # Most transforms need 8 bits or float32, which has all values of 16 bits.
        top = np.iinfo(image.dtype).max
        result = dict(super().__call__(image=image / np.float32(top), mask=mask))
        result["image"] = np.rint(result["image"].clip(0, 1) * top).astype(image.dtype)
        return result


def color_jitter(strength: float) -> A.ColorJitter | None:
    """Return the colour jitter of `data.photometric`, or None for the strength 0."""
    factors, turn = (1 - 0.4 * strength, 1 + 0.4 * strength), 0.1 * strength
    return A.ColorJitter(factors, factors, factors, (-turn, turn), p=1.0) if strength > 0 else None


def set_draws(pipeline: Any, generator: np.random.Generator, draws: random.Random) -> None:
    """Make a pipeline of albumentations draw from the given generators."""
    # `set_random_seed` would give every part of the pipeline the same draws.
    if isinstance(pipeline, A.BasicTransform | A.BaseCompose):
        pipeline.set_random_state(generator, draws)
