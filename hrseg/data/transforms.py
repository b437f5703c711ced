"""Augmentation of training samples: random scale, crop, flip, colour jitter, custom pipelines."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt

from hrseg.data.augment import Augmentations, color_jitter, set_draws
from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.utils.augmentations import NEEDS_RGB, Augmentation
from hrseg.utils.channels import Pixels
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.geometry import scaled_size

P = TypeVar("P", Array, Pixels)
Size = tuple[int, int]
Pipeline = Callable[..., Mapping[str, Any]]  # (image=, mask=) -> {"image", "mask"}


class Window(NamedTuple):
    """Crop of a scaled image, padded outside the image."""

    size: Size  # (height, width) of the whole scaled image
    y: int  # first row of the crop in the scaled image
    x: int  # first column
    flip: bool  # mirror the crop
    crop_size: Size  # padding is at the bottom and, before the flip, at the right


class TrainTransform:
    """Random scale, pad, crop and flip of an image and its mask, then optional augmentations.

    Args:
        crop_size: (height, width) of the crop.
        scales: (first, last, step) or (low, high) of the random scale.
        base_size: longer side of the image at scale 1; None: the image's own.
        flip: probability to mirror the crop.
        flip_pairs: class ids that swap if the crop is mirrored (left arm, right arm).
        photometric: strength of the colour jitter. Strength 1 changes brightness, contrast and
            saturation by up to 40 % and the hue by up to a tenth of a turn.
        squash: (height, width) to resize every image to before scaling.
        augment: augmentations by name, called after the colour jitter.
        pipeline: custom augmentation, called last; see `SegmentationDataModule`.

    Raises:
        ConfigError: invalid scales, or an augmentation that needs a square crop. `DataOptions`
            checks the other arguments.

    Examples:
        >>> transform = TrainTransform((32, 48))
        >>> image, mask = np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)
        >>> [array.shape for array in transform(image, mask, seeds=(304, 0, 7))]
        [(32, 48, 3), (32, 48)]
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
        augment: Sequence[Augmentation] = (),
        pipeline: Pipeline | None = None,
    ) -> None:
        if len(scales) not in (2, 3) or not 0 < scales[0] <= scales[1] or min(scales) <= 0:
            raise ConfigError(
                f"data.scales is {list(scales)}.\nExpected: (first, last, step) or (low, high), "
                "positive and rising. Fix: for example data.scales=[0.5,2.1,0.1]"
            )
        self.crop_size = (crop_size[0], crop_size[1])
        self.scales = tuple(scales)
        self.base_size, self.flip, self.squash = base_size, flip, squash
        self.flipped_ids = np.arange(256, dtype=np.uint8)
        for left, right in flip_pairs:
            self.flipped_ids[[left, right]] = right, left
        # The options that change the colours of 8-bit RGB, and are invalid for other images.
        self.rgb_only = ["data.photometric"] * (photometric > 0) + [
            f"data.augment {part.name}" for part in augment if part.name in NEEDS_RGB
        ]
        named = Augmentations(augment, self.crop_size, self.flipped_ids) if augment else None
        stages: tuple[Pipeline | None, ...] = (color_jitter(photometric), named, pipeline)
        self.stages = [stage for stage in stages if stage is not None]

    def __call__(
        self, image: Pixels, mask: Array, seeds: tuple[int, ...], wanted: int | None = None
    ) -> tuple[Pixels, Array]:
        """Return image (h, w, N) and mask (h, w), a pure function of the arguments.

        Before the augmentations, the crop contains a pixel of the `wanted` class, or of its flip
        pair if mirrored. If the scale removes all pixels of the class, the crop is made at the
        image's own size.

        Raises:
            DataError: the mask has no pixel of the class, or the pipeline returns invalid arrays.
        """
        numpy_seed, python_seed = np.random.SeedSequence(seeds).generate_state(2, np.uint64)
        draws = random.Random(int(python_seed))
        draws.random()  # unused: keeps the samples of earlier releases
        window = self.draw_window(image.shape[:2], mask, wanted, draws)
        image, mask = crop_image(image, window), crop_mask(mask, window)
        if window.flip:
            mask = np.asarray(cv2.LUT(mask, self.flipped_ids), np.uint8)
        generator = np.random.default_rng(numpy_seed)
        for stage in self.stages:
            set_draws(stage, generator, draws)
            image, mask = _transformed(stage, image, mask)
        return image, mask

    def draw_window(
        self, size: tuple[int, ...], mask: Array, wanted: int | None, draws: random.Random
    ) -> Window:
        """Return a random crop of an image of `size`, with a pixel of the `wanted` class."""
        # In one step from the original pixels; the authors squash first, then scale.
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


def _transformed(pipeline: Pipeline, image: Pixels, mask: Array) -> tuple[Pixels, Array]:
    result = pipeline(image=image, mask=mask)
    parts = [result[key] for key in ("image", "mask")]
    kinds = [f"{getattr(part, 'dtype', type(part))} {tuple(np.shape(part))}" for part in parts]
    expected = [f"{part.dtype} {part.shape}" for part in (image, mask)]
    if kinds != expected:
        raise DataError(
            f"The transform returned the image {kinds[0]} and the mask {kinds[1]}.\n"
            f"Expected: {expected[0]} and {expected[1]}, the size of the crop.\n"
            "Fix: remove Normalize, ToFloat, ToTensorV2 and resizing; hrseg does these."
        )
    return np.ascontiguousarray(parts[0]), np.ascontiguousarray(parts[1])


def _draw_pixel(mask: Array, wanted: int, size: Size, draws: random.Random) -> tuple[Size, Size]:
    """Return `size`, or the mask's own size, and (row, column) of a wanted pixel at that size."""
    for scaled in (size, (mask.shape[0], mask.shape[1])):
        pixels = np.flatnonzero(crop_mask(mask, Window(scaled, 0, 0, False, scaled)) == wanted)
        if len(pixels):
            return scaled, divmod(int(draws.choice(pixels)), scaled[1])
    raise DataError(
        f"A mask has no pixel of class {wanted}, which its crop has to contain.\n"
        "Expected: the masks of the start of the training. Fix: restart it."
    )


def _starts(side: int, crop: int, pixel: int | None) -> tuple[int, int]:
    """Return the first and last possible start (row or column) of a crop with that pixel."""
    last = max(side - crop, 0)
    return (0, last) if pixel is None else (max(pixel - crop + 1, 0), min(pixel, last))


def crop_image(image: Pixels, window: Window) -> Pixels:
    """Return the crop (h, w, N) of an image (H, W, N): resize, pad, crop, flip in one warp.

    Bilinear as `cv2.resize`, within 1 grey level (2 on OpenCV 4, which rounds positions to 1/32
    pixel). Padding is 0.
    """
    height, width = _filled_size(window)
    dy, dx = image.shape[0] / window.size[0], image.shape[1] / window.size[1]
    # Pixel centres: the source of output column X is (X + x + 0.5) * dx - 0.5, as in cv2.resize.
    x0, y0 = (window.x + 0.5) * dx - 0.5, (window.y + 0.5) * dy - 0.5
    top, left = max(int(y0) - 1, 0), max(int(x0) - 1, 0)
    needed = image[top : int(y0 + height * dy) + 2, left : int(x0 + width * dx) + 2]
    if window.flip:
        x0, dx = x0 + (width - 1) * dx, -dx
    matrix = np.array([[dx, 0, x0 - left], [0, dy, y0 - top]])
    return _pad(_warp(needed, matrix, (width, height)), window, 0)


def _warp(image: Pixels, matrix: npt.NDArray[np.float64], size: Size) -> Pixels:
    """Return an image (H, W, N) after an affine map, bilinear; `size` is (width, height)."""
    warp = partial(
        cv2.warpAffine,
        M=matrix,
        dsize=size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    if image.shape[2] == 3 and image.dtype == np.uint8:
        # Four channels are faster than three.
        warped = warp(cv2.cvtColor(image, cv2.COLOR_RGB2RGBA))
        return np.asarray(cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB), np.uint8)
    # OpenCV 4 warps at most four channels at once, and returns one channel without an axis.
    groups = [np.ascontiguousarray(image[..., i : i + 4]) for i in range(0, image.shape[2], 4)]
    return np.concatenate([warp(group).reshape(*size[::-1], -1) for group in groups], axis=2)


def crop_mask(mask: Array, window: Window) -> Array:
    """Return the crop (h, w) of a mask (H, W): nearest as `cv2.resize`, padded with 255."""
    starts = (window.y, window.x)
    # 1 / (new / old) rounds as cv2.resize does; old / new would move whole columns.
    rows, columns = (
        np.minimum(((start + np.arange(count)) * (1 / (new / old))).astype(np.intp), old - 1)
        for start, count, old, new in zip(
            starts, _filled_size(window), mask.shape, window.size, strict=True
        )
    )
    if window.flip:
        columns = columns[::-1]
    return _pad(mask.take(rows, 0).take(columns, 1), window, IGNORE_INDEX)


def _filled_size(window: Window) -> Size:
    """Return (height, width) of the part of the crop without padding."""
    height = min(window.crop_size[0], window.size[0] - window.y)
    return height, min(window.crop_size[1], window.size[1] - window.x)


def _pad(array: P, window: Window, value: int) -> P:
    height, width = array.shape[:2]
    if (height, width) == window.crop_size:
        return array
    padded = np.full((*window.crop_size, *array.shape[2:]), value, array.dtype)
    left = window.crop_size[1] - width if window.flip else 0
    padded[:height, left : left + width] = array
    return cast(P, padded)
