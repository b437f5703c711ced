"""Augmentation of a training sample. The only file that imports albumentations."""

import os
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

# albumentations asks a package registry for news when it is imported.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np

from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.geometry import scaled_size

Size = tuple[int, int]


class TrainTransform:
    """Random scale, pad, crop, flip, and optional colour jitter of one image and its mask.

    Args:
        crop_size: (height, width) of what comes out.
        scales: (first, last, step), drawn in steps, last included; or (low, high), uniformly.
        base_size: long side in pixels at scale 1; None: the image's own.
        flip: probability of a horizontal flip.
        flip_pairs: class ids that swap when the image is flipped (left arm, right arm).
        photometric: strength of the jitter of brightness, contrast, saturation (up to 40 % at
            strength 1) and hue (a tenth of a turn); 0 = off.
        squash: (height, width) that stands for the image's own size before it is scaled; the
            shape is not kept. None: the image's own.

    Raises:
        ConfigError: scales, flip or photometric out of range.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        scales: Sequence[float] = (0.5, 2.1, 0.1),
        base_size: int | None = None,
        flip: float = 0.5,
        flip_pairs: Sequence[tuple[int, int]] = (),
        photometric: float = 0.0,
        squash: Sequence[int] | None = None,
    ) -> None:
        """Build the albumentations pipeline."""
        _check(crop_size, scales, flip, photometric)
        steps = [RandomScaleCropFlip(crop_size, scales, base_size, flip, flip_pairs, squash)]
        if photometric > 0:
            about_one = (1 - 0.4 * photometric, 1 + 0.4 * photometric)
            hue = (-0.1 * photometric, 0.1 * photometric)
            steps.append(A.ColorJitter(about_one, about_one, about_one, hue, p=1.0))
        self.pipeline = A.Compose(steps)

    def __call__(
        self, image: Array, mask: Array, seeds: tuple[int, ...], wanted: int | None = None
    ) -> tuple[Array, Array]:
        """Return image (h, w, 3) and mask (h, w), a function of the arguments alone.

        The crop holds a pixel of the `wanted` class of the mask (or, mirrored, of its flip pair).
        A class too thin for the scale that is drawn is shown at the image's own size.

        Raises:
            DataError: the mask has no pixel of the wanted class.
        """
        numpy_seed, python_seed = np.random.SeedSequence(seeds).generate_state(2, np.uint64)
        # Not set_random_seed: it gives every step the same numbers, so jitter would follow scale.
        self.pipeline.set_random_state(
            np.random.default_rng(numpy_seed), random.Random(int(python_seed))
        )
        result = self.pipeline(image=image, mask=mask, wanted=wanted)
        return result["image"], result["mask"]


class Window(NamedTuple):
    """What is cut out of a scaled image.

    Attributes:
        size: (height, width) of the whole image after scaling.
        y: first row of the crop in the scaled image.
        x: first column.
        flip: mirror the crop.
        crop_size: (height, width) of the crop; what the image does not fill is padding, at the
            bottom and, before the flip, at the right.
    """

    size: tuple[int, int]
    y: int
    x: int
    flip: bool
    crop_size: tuple[int, int]


def scale_crop_flip(image: Array, mask: Array, window: Window) -> tuple[Array, Array]:
    """Return what resize + pad + crop + flip give, reading only the pixels that are needed.

    Args:
        image: (H, W, 3), bilinear as `cv2.resize` (within 1 grey level; 2 on OpenCV 4, which
            rounds positions to 1/32 pixel), padded with 0.
        mask: (H, W), nearest as `cv2.resize`, padded with 255.
        window: size after scaling, place, flip and size of the crop.

    Returns:
        image (h, w, 3) and mask (h, w) of the crop size.
    """
    return crop_image(image, window), crop_mask(mask, window)


def crop_image(image: Array, window: Window) -> Array:
    """Return the image half of `scale_crop_flip`, by one warp."""
    (height, width), at = _filled(window), window
    dy, dx = image.shape[0] / at.size[0], image.shape[1] / at.size[1]
    # Pixel centres: the source of output column X is (X + x + 0.5) * dx - 0.5, as in cv2.resize.
    x0, y0 = (at.x + 0.5) * dx - 0.5, (at.y + 0.5) * dy - 0.5
    top, left = max(int(y0) - 1, 0), max(int(x0) - 1, 0)
    needed = image[top : int(y0 + height * dy) + 2, left : int(x0 + width * dx) + 2]
    if at.flip:
        x0, dx = x0 + (width - 1) * dx, -dx
    matrix = np.array([[dx, 0, x0 - left], [0, dy, y0 - top]])
    warped = cv2.warpAffine(
        cv2.cvtColor(needed, cv2.COLOR_RGB2RGBA),  # OpenCV warps four channels faster than three
        matrix,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _pad(np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), np.uint8), window, 0)


def crop_mask(mask: Array, window: Window) -> Array:
    """Return the mask half of `scale_crop_flip`, by looking up rows and columns."""
    starts = (window.y, window.x)
    # 1 / (new / have) rounds as cv2.resize does; have / new would move whole columns.
    rows, columns = (
        np.minimum(((start + np.arange(count)) * (1 / (new / have))).astype(np.intp), have - 1)
        for start, count, have, new in zip(
            starts, _filled(window), mask.shape, window.size, strict=True
        )
    )
    if window.flip:
        columns = columns[::-1]
    return _pad(mask.take(rows, 0).take(columns, 1), window, IGNORE_INDEX)


def _filled(window: Window) -> tuple[int, int]:
    """Return height and width of the part of the crop that is not padding."""
    height = min(window.crop_size[0], window.size[0] - window.y)
    return height, min(window.crop_size[1], window.size[1] - window.x)


def _pad(array: Array, window: Window, value: int) -> Array:
    height, width = array.shape[:2]
    if (height, width) == window.crop_size:
        return array
    padded = np.full((*window.crop_size, *array.shape[2:]), value, np.uint8)
    left = window.crop_size[1] - width if window.flip else 0
    padded[:height, left : left + width] = array
    return padded


def _starts(size: Size, crop_size: Size, pixel: Size | None) -> list[tuple[int, int]]:
    """Return first and last row, first and last column that a crop with that pixel starts at."""
    room = [max(have - want, 0) for have, want in zip(size, crop_size, strict=True)]
    if pixel is None:
        return [(0, most) for most in room]
    return [
        (max(at - want + 1, 0), min(at, most))
        for at, want, most in zip(pixel, crop_size, room, strict=True)
    ]


class RandomScaleCropFlip(A.DualTransform):  # type: ignore[misc]
    """Draw scale, crop and flip, and make them in one step; arguments as in `TrainTransform`."""

    def __init__(
        self,
        crop_size: Sequence[int],
        scales: Sequence[float],
        base_size: int | None = None,
        flip: float = 0.5,
        flip_pairs: Sequence[tuple[int, int]] = (),
        squash: Sequence[int] | None = None,
    ) -> None:
        """Keep what the draws depend on."""
        super().__init__(p=1.0)
        self.crop_size = (crop_size[0], crop_size[1])
        self.scales = tuple(scales)
        self.base_size = base_size
        self.flip = flip
        self.squash = squash
        self.flipped_ids = np.arange(256, dtype=np.uint8)
        for left, right in flip_pairs:
            self.flipped_ids[[left, right]] = right, left

    def get_params_dependent_on_data(
        self, params: dict[str, Any], data: dict[str, Any]
    ) -> dict[str, Any]:
        """Draw the window."""
        # From the original pixels in one step: the authors squash, then scale what they have.
        own_size = self.squash or params["shape"][:2]
        size = scaled_size(own_size, self._draw_scale(), self.base_size)
        pixel = None
        if data.get("wanted") is not None:
            size, pixel = self._draw_pixel(data["mask"], data["wanted"], size)
        rows, columns = _starts(size, self.crop_size, pixel)
        y, x = self.py_random.randint(*rows), self.py_random.randint(*columns)
        flip = self.py_random.random() < self.flip
        return {"window": Window(size, y, x, flip, self.crop_size)}

    def apply(self, img: Array, window: Window, **params: Any) -> Array:
        """Return the crop of the image."""
        return crop_image(img, window)

    def apply_to_mask(self, mask: Array, window: Window, **params: Any) -> Array:
        """Return the crop of the mask; a flip swaps the ids of `flip_pairs`."""
        crop = crop_mask(mask, window)
        return np.asarray(cv2.LUT(crop, self.flipped_ids), np.uint8) if window.flip else crop

    def _draw_pixel(self, mask: Array, wanted: int, size: Size) -> tuple[Size, Size]:
        """Return a size, if need be the mask's own, and (row, column) of a class at that size."""
        for tried in (size, (mask.shape[0], mask.shape[1])):
            scaled = crop_mask(mask, Window(tried, 0, 0, False, tried))
            places = np.flatnonzero(scaled == wanted)
            if len(places):
                return tried, divmod(int(self.py_random.choice(places)), tried[1])
        raise DataError(
            f"a mask has no pixel of class {wanted}, which a crop of it is to hold.\n"
            "Expected masks that stay as they were when training began; start it again."
        )

    def _draw_scale(self) -> float:
        first, last, *step = self.scales
        if not step:
            return float(self.py_random.uniform(first, last))
        # The official code draws 0.5 + randint(0, 16) / 10, so 2.1 is included.
        return first + step[0] * int(self.py_random.randint(0, round((last - first) / step[0])))


def _check(
    crop_size: Sequence[int], scales: Sequence[float], flip: float, photometric: float
) -> None:
    if len(crop_size) != 2 or min(crop_size) < 1:
        raise ConfigError(f"crop_size {list(crop_size)}: expected [height, width] in pixels.")
    if len(scales) not in (2, 3) or not 0 < scales[0] <= scales[1] or min(scales) <= 0:
        raise ConfigError(
            f"scales {list(scales)}: expected (first, last, step) or (low, high), positive and "
            "rising, for example [0.5, 2.1, 0.1]."
        )
    if not 0 <= flip <= 1:
        raise ConfigError(f"flip {flip} is a probability: expected 0 to 1.")
    if not 0 <= photometric <= 2:
        raise ConfigError(f"photometric {photometric}: expected 0 (off) to 2; 1 is strong.")
