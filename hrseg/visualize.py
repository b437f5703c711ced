"""Visualisation of masks as numpy arrays: colours, overlays, legends, error maps."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from hrseg.utils.constants import IGNORE_INDEX

Array = NDArray[np.uint8]
Palette = Sequence[Sequence[int]]

VOID_COLOR = (0, 0, 0)
RIGHT_COLOR = (225, 225, 225)
WRONG_COLOR = (214, 39, 40)
_FONT_SIZE = 14
_LINE = 22
_GAP = 4


def colorize(mask: Array, palette: Palette) -> Array:
    """Return ids (H, W) in the colours of a palette, RGB uint8 (H, W, 3).

    Ids beyond the palette are black. In all functions of this module an empty palette stands for
    `default_palette`.

    Examples:
        >>> colorize(np.array([[0, 1, 255]], np.uint8), [[128, 64, 128], [0, 0, 142]]).tolist()
        [[[128, 64, 128], [0, 0, 142], [0, 0, 0]]]
    """
    return _color_table(palette)[mask]


def indexed(mask: Array, palette: Palette) -> Image.Image:
    """Return ids (H, W) as a palette image, which viewers show in the class colours."""
    picture = Image.fromarray(mask, mode="P")
    picture.putpalette(_color_table(palette).tobytes())
    return picture


def overlay(image: Array, mask: Array, palette: Palette, alpha: float = 0.5) -> Array:
    """Return an RGB image (H, W, 3) blended with the colours of a mask (H, W).

    Ignored pixels are unchanged. `alpha` is the opacity of the colours, 0..1.
    """
    blended = cv2.addWeighted(image, 1 - alpha, colorize(mask, palette), alpha, 0)
    void = mask >= (len(palette) or IGNORE_INDEX)
    blended[void] = image[void]
    return np.asarray(blended, np.uint8)


def error_map(truth: Array, pred: Array) -> Array:
    """Return a picture of the errors, RGB uint8 (H, W, 3), from ids (H, W).

    Correct pixels are light grey, wrong pixels red, ignored pixels black.
    """
    colors = np.asarray((RIGHT_COLOR, WRONG_COLOR, VOID_COLOR), np.uint8)
    return colors[np.where(truth == IGNORE_INDEX, 2, truth != pred)]


def side_by_side(images: Sequence[Array], titles: Sequence[str] | None = None) -> Array:
    """Return RGB images (H, W, 3) in one row, aligned at the top, with white gaps.

    `titles` are written above the images, one each.
    """
    if titles is not None:
        images = [
            np.vstack([_line_of_text(title, image.shape[1]), image])
            for image, title in zip(images, titles, strict=True)
        ]
    height = max(map(len, images))
    padded = [
        np.pad(image, ((0, height - len(image)), (0, _GAP), (0, 0)), constant_values=255)
        for image in images
    ]
    return np.hstack(padded)[:, :-_GAP]


def legend(class_names: Sequence[str], palette: Palette, width: int = 640) -> Array:
    """Return a legend of the classes, RGB uint8 (h, width, 3); lines wrap at `width` pixels."""
    font = ImageFont.load_default(_FONT_SIZE)
    table = _color_table(palette)
    corners, x, y = [], 0, 0
    for name in class_names:
        length = _LINE + int(font.getlength(name)) + 12
        if x and x + length > width:
            x, y = 0, y + _LINE
        corners.append((x, y))
        x += length
    strip = Image.new("RGB", (width, y + _LINE), "white")
    draw = ImageDraw.Draw(strip)
    for (x, y), name, color in zip(corners, class_names, table, strict=False):
        patch = (x + 3, y + 4, x + _LINE - 5, y + _LINE - 4)
        draw.rectangle(patch, fill=tuple(color.tolist()), outline="grey")
        draw.text((x + _LINE, y + _LINE // 2), name, fill="black", font=font, anchor="lm")
    return np.array(strip)


@lru_cache
def default_palette(count: int) -> tuple[tuple[int, int, int], ...]:
    """Return `count` RGB colours, at most 255, each as far as possible from the earlier ones.

    Distances are Euclidean in CIELAB. Black, white and grey are reserved for void and background.
    """
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    colors = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    lab = cv2.cvtColor(colors[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    neutral = np.array([[0, 0, 0], [50, 0, 0], [100, 0, 0]])
    nearest = np.linalg.norm(lab[:, None] - neutral, axis=-1).min(1)
    palette = []
    for _ in range(count):
        farthest = int(nearest.argmax())
        red, green, blue = colors[farthest].tolist()
        palette.append((red, green, blue))
        nearest = np.minimum(nearest, np.linalg.norm(lab - lab[farthest], axis=-1))
    return tuple(palette)


def _color_table(palette: Palette) -> Array:
    table = np.full((256, 3), VOID_COLOR, np.uint8)
    colors = palette if len(palette) else default_palette(IGNORE_INDEX)
    table[: len(colors)] = colors
    return table


def _line_of_text(text: str, width: int) -> Array:
    line = Image.new("RGB", (width, _LINE), "white")
    font = ImageFont.load_default(_FONT_SIZE)
    ImageDraw.Draw(line).text((2, _LINE // 2), text, fill="black", font=font, anchor="lm")
    return np.array(line)
