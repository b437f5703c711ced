"""Canvas of a synthetic scene: camera, light, texture, image and mask."""

from collections.abc import Sequence
from enum import IntEnum

import cv2
import numpy as np
import numpy.typing as npt

from hrseg.data.images import Array

Id = IntEnum("Id", "SKY BUILDING ROAD PAVEMENT VEGETATION POLE SIGN CAR PERSON", start=0)
CLASS_NAMES = tuple(label.name.lower() for label in Id)
COUNTABLE = (Id.CAR, Id.PERSON)  # classes whose objects have a number
FAR = 150.0  # metres
DARK_GLASS = np.array([48.0, 56, 66])
# Strength of the texture of each class at three sizes, fine to coarse; last row: ignored pixels.
_TEXTURE = np.array([
    (0, 0, 0), (5, 4, 7), (8, 3, 6), (6, 4, 5), (12, 16, 8), (4, 2, 2), (3, 1, 2), (3, 1, 4),
    (5, 5, 3), (2, 0, 5),
], np.float32)  # fmt: skip
_TURN = np.linspace(0, 2 * np.pi, 20, endpoint=False)
_CIRCLE = np.stack([np.cos(_TURN), np.sin(_TURN)], 1)

Color = npt.NDArray[np.float64]
Polygon = Sequence[Sequence[float]]


class Canvas:
    """Image, mask and object numbers at twice the size, a camera, and the light.

    World coordinates in metres: x to the right, y up from the ground, z ahead.
    """

    def __init__(self, rng: np.random.Generator, size: tuple[int, int]) -> None:
        """Choose camera and light at random; the image is blank."""
        self.rng = rng
        self.height, self.width = 2 * size[0], 2 * size[1]
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.mask = np.full((self.height, self.width), Id.SKY, np.uint8)
        self.numbers = np.zeros((self.height, self.width), np.uint8)  # 0 = no countable object
        self.objects: list[tuple[int, Polygon]] = []  # class id, key points in world coordinates
        w, h = self.width + 8.0, self.height + 8.0
        self.view = np.array([(-8, -8), (w, -8), (w, h), (-8, h)], np.float32)
        self.focal = rng.uniform(0.75, 1.0) * self.width
        self.horizon = rng.uniform(0.40, 0.52) * self.height
        self.center = rng.uniform(0.38, 0.62) * self.width
        self.eye = rng.uniform(1.3, 1.9)
        self.offset = rng.uniform(-1.8, 1.8)
        self.sun = int(rng.choice([-1, 1]))
        self.clear = rng.random()
        self.haze = rng.uniform((168, 178, 190), (215, 218, 222))

    def start_object(self, label: int, keypoints: Polygon) -> None:
        """Number the next object of a countable class; its fills have the class `label`."""
        self.objects.append((label, keypoints))

    def pixels(self, points: Polygon) -> npt.NDArray[np.float64]:
        """Project world points (N, 3) to pixels (N, 2)."""
        x, y, z = np.asarray(points, float).T
        scale = self.focal / np.maximum(z, 0.5)
        columns, rows = (x - self.offset) * scale, (self.eye - y) * scale
        return np.stack([self.center + columns, self.horizon + rows], 1)

    def fill(self, points: Polygon, color: Color, label: int) -> None:
        """Fill a polygon in world coordinates, faded by the haze."""
        depth = min(point[2] for point in points)
        self.fill_pixels(self.pixels(points), self.faded(color, depth), label)

    def fill_pixels(self, points: npt.NDArray[np.float64], color: Color, label: int) -> None:
        """Fill a convex polygon in pixels (N, 2)."""
        if (points < self.view[0]).any() or (points > self.view[2]).any():
            # Pixels outside the view take as long as those inside.
            limited = points.clip(-1e5, 1e5).astype(np.float32)
            area, inside = cv2.intersectConvexConvex(limited, self.view)
            if area <= 0:
                return
            points = np.asarray(inside[:, 0], float)
        corners = [np.round(points * 16).astype(np.int32)]
        cv2.fillPoly(self.image, corners, color.clip(0, 255).tolist(), cv2.LINE_AA, 4)
        cv2.fillPoly(self.mask, corners, label, cv2.LINE_8, 4)
        number = len(self.objects) if label in COUNTABLE else 0
        cv2.fillPoly(self.numbers, corners, number, cv2.LINE_8, 4)

    def disc(self, x: float, y: float, z: float, radius: float, color: Color, label: int) -> None:
        """Fill a circle that faces the camera."""
        ring = self.pixels([(x, y, z)]) + radius * self.focal / max(z, 0.5) * _CIRCLE
        self.fill_pixels(ring, self.faded(color, z), label)

    def shade(self, points: Polygon, amount: float) -> None:
        """Darken a polygon in world coordinates; the mask stays unchanged."""
        corners = self.pixels(points).clip(-1, (self.width, self.height))
        x, y = corners.min(0).clip(0).astype(int)
        part = self.image[y : int(corners[:, 1].max()) + 1, x : int(corners[:, 0].max()) + 1]
        if part.size:
            cover = np.zeros(part.shape[:2], np.uint8)
            local = [np.round((corners - (x, y)) * 16).astype(np.int32)]
            cv2.fillPoly(cover, local, 255, cv2.LINE_AA, 4)
            part[:] = part * (1 - amount / 255 * cover[..., None].astype(np.float32))

    def faded(self, color: Color, depth: float) -> Color:
        """Return the colour at a distance of `depth` metres, through haze."""
        clear = float(np.exp(-depth / FAR))
        return color * clear + self.haze * (1 - clear)

    def noise(self, cell: int) -> npt.NDArray[np.float32]:
        """Return smooth standard noise (H, W) with blobs of `cell` pixels."""
        cell = max(cell, 1)
        shape = (self.height // cell + 2, self.width // cell + 2)
        coarse = self.rng.standard_normal(shape, np.float32)
        size = (self.width, self.height)
        return np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), np.float32)

    def develop(self, size: tuple[int, int]) -> tuple[Array, Array]:
        """Add texture, light and sensor noise; return image and mask of `size`."""
        rows = np.minimum(self.mask, len(_TEXTURE) - 1)
        texture = sum(
            _TEXTURE[:, level][rows] * self.noise(cell)
            for level, cell in enumerate((1, self.height // 96, self.height // 8))
        )
        image = self.image + np.asarray(texture)[..., None]
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
        rng = self.rng
        light = rng.uniform(0.78, 1.1) * rng.uniform(0.97, 1.03, 3)
        y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
        vignette = 1 - rng.uniform(0, 0.22) * (x**2 + y**2)[..., None] / 2
        grain = rng.normal(0, rng.uniform(1.5, 5), image.shape)
        developed = (image * light * vignette + grain).clip(0, 255).astype(np.uint8)
        return developed, np.ascontiguousarray(self.mask[1::2, 1::2])


def strip(a: float, b: float, near: float = 1, far: float = 4 * FAR) -> Polygon:
    """Return a rectangle on the ground between x = a and x = b."""
    return [(a, 0, near), (b, 0, near), (b, 0, far), (a, 0, far)]


def front(a: float, b: float, low: float, high: float, z: float) -> Polygon:
    """Return an upright rectangle that faces the camera."""
    return [(a, low, z), (b, low, z), (b, high, z), (a, high, z)]


def facade(x: float, low: float, high: float, near: float, far: float) -> Polygon:
    """Return an upright rectangle along the street."""
    return [(x, low, near), (x, low, far), (x, high, far), (x, high, near)]


def shrink(polygon: Polygon, part: float) -> Polygon:
    """Return the polygon scaled by `part` about its centre."""
    corners = np.asarray(polygon)
    shrunk: list[list[float]] = (corners.mean(0) + part * (corners - corners.mean(0))).tolist()
    return shrunk
