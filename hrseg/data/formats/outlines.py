"""Outlines of annotated boxes and ellipses as polygons, and colours of classes."""

import re
from collections.abc import Sequence

import numpy as np

from hrseg.data.formats.annotations import FloatArray

_CORNERS = 128  # of an ellipse: at a radius of 500 pixels its outline is at most 0.2 pixels off


def box(left: float, top: float, right: float, bottom: float) -> FloatArray:
    """Return the corners (4, 2) of a box, x, y in pixels."""
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float64)


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> FloatArray:
    """Return a polygon (128, 2) for an ellipse about x, y; all values in pixels."""
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    return np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], 1)


def rotated(points: FloatArray, degrees: float, pivot: tuple[float, float]) -> FloatArray:
    """Return points (N, 2) turned about a pivot x, y: clockwise in the picture, as y points down.

    Examples:
        >>> rotated(np.array([[3.0, 1.0]]), 90, (1, 1)).round(6).tolist()
        [[1.0, 3.0]]
    """
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turned = (points - pivot) @ np.array([[cosine, sine], [-sine, cosine]])
    return np.asarray(turned + pivot, np.float64)


def palette_of(colors: Sequence[object]) -> tuple[tuple[int, int, int], ...] | None:
    """Return RGB colours of texts such as "#ff0080"; None if one has another form.

    Examples:
        >>> palette_of(["#ff0080", "#000001"])
        ((255, 0, 128), (0, 0, 1))
    """
    palette = []
    for color in colors:
        match = re.fullmatch("#?([0-9a-f]{6})", str(color).strip().lower())
        if match is None:
            return None
        red, green, blue = bytes.fromhex(match[1])
        palette.append((red, green, blue))
    return tuple(palette)
