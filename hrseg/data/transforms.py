"""Augmentation of training samples. The only file that imports albumentations."""

import os
import random
from collections.abc import Callable, Mapping, Sequence
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
Pipeline = Callable[..., Mapping[str, Any]]  # (image=, mask=) -> {"image", "mask"}


class Window(NamedTuple):
    """A crop of a scaled image. What the image does not fill is padding."""

    size: Size  # (height, width) of the whole image after scaling
    y: int  # first row of the crop in the scaled image
    x: int  # first column
    flip: bool  # mirror the crop
    crop_size: Size  # padding is at the bottom and, before the flip, at the right


class TrainTransform:
    """Random scale, pad, crop, flip, and optional colour jitter of an image and its mask.

    Arguments are the `DataOptions` of these names. `flip_pairs` are class ids that swap when the
    image is flipped (left arm, right arm). A jitter of strength 1 changes brightness, contrast
    and saturation by up to 40 % and the hue by a tenth of a turn. A `pipeline` acts last.
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
        pipeline: Pipeline | None = None,
    ) -> None:
        """Check the scales; `DataOptions` has checked the other arguments."""
        if len(scales) not in (2, 3) or not 0 < scales[0] <= scales[1] or min(scales) <= 0:
            raise ConfigError(
                f"scales {list(scales)}: expected (first, last, step) or (low, high), positive and "
                "rising, for example [0.5, 2.1, 0.1]."
            )
        self.crop_size = (crop_size[0], crop_size[1])
        self.scales = tuple(scales)
        self.base_size, self.flip, self.squash = base_size, flip, squash
        self.pipeline = pipeline
        self.flipped_ids = np.arange(256, dtype=np.uint8)
        for left, right in flip_pairs:
            self.flipped_ids[[left, right]] = right, left
        factors, turn = (1 - 0.4 * photometric, 1 + 0.4 * photometric), 0.1 * photometric
        jitter = A.ColorJitter(factors, factors, factors, (-turn, turn), p=1.0)
        self.jitter = jitter if photometric > 0 else None

    def __call__(
        self, image: Array, mask: Array, seeds: tuple[int, ...], wanted: int | None = None
    ) -> tuple[Array, Array]:
        """Return image (h, w, 3) and mask (h, w), a function of the arguments only.

        The crop contains a pixel of the `wanted` class (or, mirrored, of its flip pair); DataError
        if the mask has none. A class too thin for the scale is shown at the image's own size.
        """
        numpy_seed, python_seed = np.random.SeedSequence(seeds).generate_state(2, np.uint64)
        draws = random.Random(int(python_seed))
        draws.random()  # keeps the numbers of the samples that earlier releases drew
        window = self.draw_window(image.shape[:2], mask, wanted, draws)
        image, mask = crop_image(image, window), crop_mask(mask, window)
        if window.flip:
            mask = np.asarray(cv2.LUT(mask, self.flipped_ids), np.uint8)
        generator = np.random.default_rng(numpy_seed)
        if self.jitter is not None:
            self.jitter.set_random_state(generator, draws)
            image = self.jitter(image=image)["image"]
        if self.pipeline is not None:
            # Not `set_random_seed`: it gives every part of the pipeline the same draws.
            if isinstance(self.pipeline, A.BasicTransform | A.BaseCompose):
                self.pipeline.set_random_state(generator, draws)
            image, mask = _transformed(self.pipeline, image, mask)
        return image, mask

    def draw_window(
        self, size: tuple[int, ...], mask: Array, wanted: int | None, draws: random.Random
    ) -> Window:
        """Return a random crop of an image of `size`, with a pixel of the `wanted` class."""
        # From the original pixels in one step: the authors squash, then scale the result.
        height, width = self.squash or size
        scaled, pixel = scaled_size((height, width), self._draw_scale(draws), self.base_size), None
        if wanted is not None:
            scaled, pixel = _draw_pixel(mask, wanted, scaled, draws)
        y, x = (
            draws.randint(*_starts(scaled[axis], self.crop_size[axis], pixel and pixel[axis]))
            for axis in (0, 1)
        )
        return Window(scaled, y, x, draws.random() < self.flip, self.crop_size)

    def _draw_scale(self, draws: random.Random) -> float:
        first, last, *step = self.scales
        if not step:
            return draws.uniform(first, last)
        # The official code draws 0.5 + randint(0, 16) / 10, so 2.1 is included.
        return first + step[0] * draws.randint(0, round((last - first) / step[0]))


def _transformed(pipeline: Pipeline, image: Array, mask: Array) -> tuple[Array, Array]:
    result = pipeline(image=image, mask=mask)
    parts = [result[key] for key in ("image", "mask")]
    kinds = [f"{getattr(part, 'dtype', type(part))} {tuple(np.shape(part))}" for part in parts]
    expected = [f"uint8 {part.shape}" for part in (image, mask)]
    if kinds != expected:
        raise DataError(
            f"The transform returned the image {kinds[0]} and the mask {kinds[1]}.\n"
            f"Expected: {expected[0]} and {expected[1]}, the size of the crop.\n"
            "Fix: leave out Normalize, ToFloat, ToTensorV2 and other sizes; hrseg does these."
        )
    return np.ascontiguousarray(parts[0]), np.ascontiguousarray(parts[1])


def _draw_pixel(mask: Array, wanted: int, size: Size, draws: random.Random) -> tuple[Size, Size]:
    """Return `size`, or the mask's own, and (row, column) of a wanted pixel at that size."""
    for scaled in (size, (mask.shape[0], mask.shape[1])):
        pixels = np.flatnonzero(crop_mask(mask, Window(scaled, 0, 0, False, scaled)) == wanted)
        if len(pixels):
            return scaled, divmod(int(draws.choice(pixels)), scaled[1])
    raise DataError(
        f"a mask has no pixel of class {wanted}, which a crop of it is to contain.\n"
        "Expected masks that stay as they were when training began; start it again."
    )


def _starts(side: int, crop: int, pixel: int | None) -> tuple[int, int]:
    """Return the first and last row (or column) at which a crop with that pixel can start."""
    last = max(side - crop, 0)
    return (0, last) if pixel is None else (max(pixel - crop + 1, 0), min(pixel, last))


def crop_image(image: Array, window: Window) -> Array:
    """Return the crop (h, w, 3) of an RGB image (H, W, 3): resize, pad, crop, flip in one warp.

    Bilinear as `cv2.resize`, within 1 grey level (2 on OpenCV 4, which rounds positions to 1/32
    pixel). Padding is 0.
    """
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
    """Return the crop (h, w) of a mask (H, W): nearest as `cv2.resize`, padded with 255."""
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


def _filled(window: Window) -> Size:
    """Return height and width of the part of the crop without padding."""
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
