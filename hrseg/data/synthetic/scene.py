"""Synthetic street scene with its mask: sky, ground, houses, then objects from far to near."""

from functools import partial

import numpy as np

from hrseg.data.images import Array
from hrseg.data.synthetic.annotations import SceneObject, visible_objects
from hrseg.data.synthetic.canvas import DARK_GLASS, FAR, Canvas, Id, facade, front, strip
from hrseg.data.synthetic.objects import car, crown, person, pole, tree
from hrseg.utils.constants import IGNORE_INDEX

WALLS = np.array([
    (205, 190, 165), (180, 110, 85), (165, 160, 155), (222, 212, 198), (190, 150, 105),
    (150, 125, 105), (200, 175, 160), (150, 85, 70),
], float)  # fmt: skip


def generate_scene(seed: int, index: int, size: tuple[int, int]) -> tuple[Array, Array]:
    """Return image (H, W, 3) RGB and mask (H, W): ids of `canvas.CLASS_NAMES`, 255 = ignore.

    Args:
        seed: selects the series of scenes.
        index: selects the scene; equal arguments draw equal scenes.
        size: (height, width) in pixels.
    """
    return _draw(seed, index, size).develop(size)


def generate_annotated_scene(
    seed: int, index: int, size: tuple[int, int]
) -> tuple[Array, Array, list[SceneObject]]:
    """Return image and mask of `generate_scene`, and the visible cars and persons, far to near."""
    canvas = _draw(seed, index, size)
    return *canvas.develop(size), visible_objects(canvas)


def _draw(seed: int, index: int, size: tuple[int, int]) -> Canvas:
    rng = np.random.default_rng((seed, index))
    canvas = Canvas(rng, size)
    half, walk = rng.uniform(3.4, 5.2), rng.uniform(2.2, 3.8)
    _sky(canvas)
    _ground(canvas, half, walk)
    for side in (-1, 1):
        _street_front(canvas, side, half + walk + rng.uniform(0.2, 1.5))
    objects = []
    for side in (-1, 1):
        for z in _distances(rng, 5, rng.uniform(9, 22)):
            objects.append((z, partial(tree, canvas, side * (half + 0.6 * walk), z)))
        for z in _distances(rng, 5, rng.uniform(9, 22)):
            objects.append((z, partial(pole, canvas, side * (half + 0.35), z, side)))
        for z in _distances(rng, 6, rng.uniform(7, 18)):
            x = side * (half - 1.05 if rng.random() < 0.7 else half * 0.42)
            objects.append((z, partial(car, canvas, x, z)))
        for z in _distances(rng, 5, rng.uniform(4, 12)):
            x = side * (half + rng.uniform(0.2, 0.9) * walk)
            if rng.random() < 0.12:  # on the road
                x = rng.uniform(-0.8, 0.8) * half
            objects.append((z, partial(person, canvas, x, z)))
    for _, paint in sorted(objects, key=lambda item: -item[0]):
        paint()
    if rng.random() < 0.4:
        _bonnet(canvas)
    return canvas


def _distances(rng: np.random.Generator, nearest: float, gap: float) -> list[float]:
    steps = rng.uniform(0.35, 1.65, 24) * gap
    distances = nearest + rng.uniform(-0.3, 1) * gap + np.cumsum(steps) - steps[0]
    return [float(z) for z in distances if nearest < z < 0.7 * FAR]


def _sky(canvas: Canvas) -> None:
    rng, clear = canvas.rng, canvas.clear
    top = np.array([70, 125, 205]) * clear + np.array([150, 158, 170]) * (1 - clear)
    ramp = (np.arange(canvas.height) / canvas.horizon).clip(0, 1)[:, None, None] ** 1.3
    sky = np.repeat(top * (1 - ramp) + canvas.haze * ramp, canvas.width, 1)
    unit = max(canvas.height // 12, 3)
    clouds = canvas.noise(3 * unit) + 0.5 * canvas.noise(unit) + 0.25 * canvas.noise(unit // 3)
    cover = (clouds * 0.6 - rng.uniform(-0.3, 0.7)).clip(0, 1)[..., None] * (1 - 0.7 * ramp)
    canvas.image[:] = sky * (1 - cover) + (238 - 30 * cover) * cover


def _ground(canvas: Canvas, half: float, walk: float) -> None:
    rng, edge = canvas.rng, half + walk
    grass = rng.uniform((60, 95, 40), (105, 135, 70))
    canvas.fill(strip(-400, 400), grass, Id.VEGETATION)
    for x in np.arange(-120, 120, 9) + rng.uniform(-3, 3):
        label = Id.VEGETATION if rng.random() < 0.5 else Id.BUILDING
        color = grass * 0.7 if label == Id.VEGETATION else rng.uniform(90, 170, 3)
        canvas.fill(front(x, x + rng.uniform(9, 16), 0, rng.uniform(3, 15), 180), color, label)
    stone = rng.uniform(125, 175) + rng.uniform((0, -4, -10), (12, 4, 2))
    asphalt = rng.uniform(68, 108) + rng.uniform(-4, 4, 3)
    kerb = half + 0.15
    for wide, color, label in (
        (edge, stone * 0.92, Id.PAVEMENT),
        (kerb, stone * 1.18, Id.PAVEMENT),
        (half, asphalt, Id.ROAD),
    ):
        for near in (1, 5, 10, 18, 30, 50, 90):  # in parts: the haze increases with the distance
            canvas.fill(strip(-wide, wide, near), color, label)
    for side in (-1, 1):
        for z in np.arange(3, 40, 1.6):
            slab = strip(side * kerb, side * edge, z, z + 0.05)
            canvas.fill(slab, stone * 0.78, Id.PAVEMENT)
    _markings(canvas, half)
    shadow, reach = canvas.sun * (edge + 1), canvas.sun * rng.uniform(-0.3, 1.1) * half
    canvas.shade(strip(shadow, reach), 0.4 * canvas.clear)


def _markings(canvas: Canvas, half: float) -> None:
    rng = canvas.rng
    paint = np.full(3, rng.uniform(185, 235))
    for z in np.arange(1 + rng.uniform(0, 4), 90, 6):
        canvas.fill(strip(-0.08, 0.08, z, z + 3), paint, Id.ROAD)
    if rng.random() < 0.5:
        for side in (-1, 1):
            canvas.fill(strip(side * (half - 2.1), side * (half - 2.0), 1.5, 120), paint, Id.ROAD)
    if rng.random() < 0.35:  # a zebra crossing
        z = rng.uniform(6, 20)
        for x in np.arange(-half + 0.3, half - 0.5, 1.0):
            canvas.fill(strip(x, x + 0.5, z, z + 3), paint, Id.ROAD)


def _street_front(canvas: Canvas, side: int, x: float) -> None:
    rng = canvas.rng
    spans, z = [], rng.uniform(-8, 6)
    while z < FAR:
        length = rng.uniform(7, 22)
        spans.append((max(z, 1.2), z + length))
        z += length + (rng.uniform(3, 14) if rng.random() < 0.35 else 0)
    for near, far in reversed(spans):
        kind = rng.random()
        if kind < 0.12:
            for z in np.arange(far, near, -2.2):
                crown(canvas, side * (x + 1.5), rng.uniform(0.8, 1.6), z, rng.uniform(1.6, 2.6))
        elif kind < 0.92 and far - near > 1:
            _house(canvas, side, x + rng.uniform(0, 1), near, far)


def _house(canvas: Canvas, side: int, x: float, near: float, far: float) -> None:
    rng = canvas.rng
    wall = WALLS[rng.integers(len(WALLS))] * rng.uniform(0.75, 1.05) + rng.uniform(-12, 12, 3)
    lit = 1.0 if canvas.sun == side else 1.0 - 0.25 * canvas.clear
    storeys = int(rng.integers(2, 6))
    storey = rng.uniform(2.8, 3.5)
    top, back = storeys * storey + 0.6, x + rng.uniform(8, 14)
    roof = np.array([140.0, 88, 76]) * rng.uniform(0.6, 1.1) + rng.uniform(-10, 10, 3)
    canvas.fill(front(side * x, side * back, 0, top, near), wall * (1.3 - 0.5 * lit), Id.BUILDING)
    if rng.random() < 0.6:
        ridge = x + rng.uniform(2, 4)
        gable = [(side * x, top, near), (side * back, top, near), (side * ridge, top + 2.5, near)]
        canvas.fill(gable, wall * 0.85, Id.BUILDING)
        slope = [(x, top, near), (x, top, far), (ridge, top + 2.5, far), (ridge, top + 2.5, near)]
        canvas.fill([(side * a, b, c) for a, b, c in slope], roof, Id.BUILDING)
    canvas.fill(facade(side * x, 0, top, near, far), wall * lit, Id.BUILDING)
    canvas.fill(facade(side * x, 0, 0.5, near, far), wall * lit * 0.7, Id.BUILDING)
    glass = DARK_GLASS * rng.uniform(0.7, 1.6)
    step, wide, tall = rng.uniform(2.2, 3.6), rng.uniform(0.9, 1.6), rng.uniform(1.3, 1.9)
    shop = rng.uniform(40, 200, 3) if rng.random() < 0.4 else None
    for floor in range(storeys):
        sill = floor * storey + 1.1
        for z in np.arange(far - step / 2, near + wide, -step):
            if z - wide < near or z > 90:
                continue
            frame = facade(side * x, sill - 0.12, sill + tall + 0.12, z - wide - 0.12, z + 0.12)
            canvas.fill(frame, wall * lit * 1.18, Id.BUILDING)
            pane = glass * rng.uniform(0.8, 1.5) + rng.uniform(0, 40) * canvas.clear
            canvas.fill(facade(side * x, sill, sill + tall, z - wide, z), pane, Id.BUILDING)
    if shop is not None:
        canvas.fill(facade(side * x, 2.5, 3.3, near, far), shop * lit, Id.BUILDING)


def _bonnet(canvas: Canvas) -> None:
    rng, width, height = canvas.rng, canvas.width, canvas.height
    columns = np.linspace(0.08, 0.92, 24)
    rise = height * rng.uniform(0.05, 0.1) * np.sin(np.pi * np.linspace(0.02, 0.98, 24)) ** 0.5
    curve = np.stack([columns * width, height - rise], 1)
    outline = np.vstack([curve, [(width, height), (0, height)]])
    canvas.fill_pixels(outline, rng.uniform(25, 120, 3), IGNORE_INDEX)
