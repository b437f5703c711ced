"""Objects of a synthetic scene: trees, poles, signs, cars, persons; sizes in metres."""

import numpy as np

from hrseg.data.synthetic.canvas import DARK_GLASS, Canvas, Id, front, shrink, strip

# Left and right are those of the image.
PERSON_KEYPOINTS = (
    "head", "left shoulder", "right shoulder", "left hand", "right hand", "left foot", "right foot",
)  # fmt: skip


def crown(canvas: Canvas, x: float, y: float, z: float, radius: float) -> None:
    """Draw the leaves of a tree or bush, lit from above and from the sun's side."""
    rng = canvas.rng
    green = np.array([72.0, 102, 42]) * rng.uniform(0.6, 1.2) + rng.uniform(-12, 12, 3)
    spots = rng.normal(0, 0.5, (16, 2)).clip(-0.9, 0.9) * radius
    for dx, dy in spots[np.argsort(spots[:, 1])]:
        light = 1 + 0.22 * dy / radius + 0.15 * canvas.sun * dx / radius + rng.uniform(-0.1, 0.1)
        blob = radius * rng.uniform(0.3, 0.55)
        canvas.disc(x + dx, max(y + dy, 0.8 * blob), z, blob, green * light, Id.VEGETATION)


def tree(canvas: Canvas, x: float, z: float) -> None:
    """Draw a tree with its shadow."""
    rng = canvas.rng
    height, thick = rng.uniform(3, 5.5), rng.uniform(0.12, 0.24)
    _cast(canvas, x, z, 1.2)
    bark = rng.uniform((70, 55, 40), (105, 90, 75))
    canvas.fill(front(x - thick, x + thick, 0, height, z), bark, Id.VEGETATION)
    crown(canvas, x, height, z, rng.uniform(1.3, 2.3))


def pole(canvas: Canvas, x: float, z: float, side: int) -> None:
    """Draw a street lamp, a traffic light, or a post with a sign."""
    rng = canvas.rng
    gray = rng.uniform(60, 150) + np.zeros(3)
    lamp = rng.random() < 0.4
    height, thick = (rng.uniform(5, 7), 0.08) if lamp else (rng.uniform(2.3, 3.2), 0.05)
    canvas.fill(front(x - thick, x + thick, 0, height, z), gray, Id.POLE)
    if lamp:
        arm = x - side * rng.uniform(0.8, 1.6)
        canvas.fill(front(x, arm, height - 0.08, height + 0.06, z), gray, Id.POLE)
        canvas.fill(
            front(arm, arm - side * 0.5, height - 0.12, height + 0.08, z), gray * 0.8, Id.POLE
        )
    elif rng.random() < 0.3:
        canvas.fill(front(x - 0.2, x + 0.2, height - 0.1, height + 0.9, z), gray * 0.3, Id.SIGN)
        for row, color in enumerate(([40, 190, 90], [225, 170, 30], [215, 45, 40])):
            glow = np.array(color) * (1.0 if rng.random() < 0.4 else 0.35)
            canvas.disc(x, height + 0.1 + 0.28 * row, z - 0.01, 0.11, glow, Id.SIGN)
    else:
        _sign(canvas, x, height, z)


def _sign(canvas: Canvas, x: float, y: float, z: float) -> None:
    rng = canvas.rng
    red, white = np.array([195.0, 35, 40]), np.full(3, 230.0)
    blue, size = np.array([35.0, 80, 165]), rng.uniform(0.32, 0.45)
    kind = rng.integers(4)
    if kind == 0:
        canvas.disc(x, y, z, size, red, Id.SIGN)
        canvas.disc(x, y, z, size * 0.72, white, Id.SIGN)
    elif kind == 1:
        canvas.disc(x, y, z, size, blue, Id.SIGN)
        canvas.fill(front(x - 0.06, x + 0.06, y - 0.2, y + 0.2, z), white, Id.SIGN)
    elif kind == 2:
        for part, color in ((1.2, red), (0.75, white)):
            wide = size * part
            corners = [(x - wide, y - 0.6 * wide, z), (x + wide, y - 0.6 * wide, z)]
            canvas.fill([*corners, (x, y + 1.1 * wide, z)], color, Id.SIGN)
    else:
        canvas.fill(front(x - size, x + size, y - size, y + size, z), blue, Id.SIGN)
        canvas.fill(front(x - 0.2, x + 0.2, y - 0.2, y + 0.2, z), white, Id.SIGN)


def car(canvas: Canvas, x: float, z: float) -> None:
    """Draw a car from behind or from the front, with the side that the camera sees."""
    rng = canvas.rng
    paint = rng.uniform(25, 225) + rng.uniform(-50, 50, 3) * (rng.random() < 0.5)
    half, tall, length = rng.uniform(0.83, 0.95), rng.uniform(1.35, 1.75), rng.uniform(3.8, 4.7)
    waist, roof = 0.55 * tall, half * 0.8
    left, right = x - half, x + half
    canvas.start_object(Id.CAR, ())
    canvas.shade(strip(left - 0.25, right + 0.25, z - 0.35, z + length), 0.55)
    inner, toward = (left, 1) if x > canvas.offset else (right, -1)
    cabin = x - toward * roof
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    for wheel in (z + 0.75, z + length - 0.8):
        for radius, tone in ((0.34, 28), (0.18, 130)):
            rim = [(inner, 0.33 + radius * np.sin(t), wheel + radius * np.cos(t)) for t in turn]
            canvas.fill(rim, np.full(3, float(tone)), Id.CAR)
    for a, b in ((left + 0.1, left + 0.34), (right - 0.34, right - 0.1)):
        canvas.fill(front(a, b, 0, 0.4, z + 0.1), np.full(3, 25.0), Id.CAR)
    side = [(inner, waist, z + 0.1), (cabin, tall, z + 0.5), (cabin, tall, z + 0.62 * length),
            (inner, waist, z + 0.8 * length)]  # fmt: skip
    canvas.fill(side, paint * 0.8, Id.CAR)
    canvas.fill(shrink(side, 0.78), DARK_GLASS, Id.CAR)
    ends = ((0.3, z), (waist, z), (waist, z + length), (0.3, z + length))
    canvas.fill([(inner, y, depth) for y, depth in ends], paint * 0.82, Id.CAR)
    canvas.fill(rim, np.full(3, 60.0), Id.CAR)
    rear = [(left, waist, z + 0.05), (x - roof, tall, z + 0.45), (x + roof, tall, z + 0.45),
            (right, waist, z + 0.05)]  # fmt: skip
    canvas.fill(rear, paint * 1.1, Id.CAR)
    canvas.fill(shrink(rear, 0.8), DARK_GLASS * rng.uniform(0.8, 1.7), Id.CAR)
    canvas.fill(front(left, right, 0.28, waist, z), paint, Id.CAR)
    canvas.fill(front(left, right, 0.28, 0.46, z), paint * 0.6, Id.CAR)
    canvas.fill(front(x - 0.26, x + 0.26, 0.5, 0.62, z), np.full(3, 225.0), Id.CAR)
    lights = np.array([190.0, 30, 30]) if rng.random() < 0.6 else np.array([240.0, 240, 215])
    for a, b in ((left + 0.04, left + 0.3), (right - 0.3, right - 0.04)):
        canvas.fill(front(a, b, waist - 0.26, waist - 0.08, z), lights, Id.CAR)


def person(canvas: Canvas, x: float, z: float) -> None:
    """Draw a walking person with the key points of PERSON_KEYPOINTS."""
    rng = canvas.rng
    tall, wide, stride = rng.uniform(1.5, 1.9), rng.uniform(0.2, 0.28), rng.uniform(-0.2, 0.2)
    hip, neck = 0.48 * tall, 0.84 * tall
    coat, trousers = rng.uniform(20, 215, 3), rng.uniform(20, 120, 3)
    skin = np.array([215.0, 170, 140]) * rng.uniform(0.45, 1.05)
    arms, legs = (-1, 1), ((stride, -0.5), (-stride, 0.5))
    shoulders = [(x + arm * wide, neck - 0.05, z) for arm in arms]
    hands = [(x + arm * (wide + 0.06 + stride), hip + 0.05, z) for arm in arms]
    feet = [(x + leg * wide + 0.95 * foot, 0.05, z) for foot, leg in legs]
    canvas.start_object(Id.PERSON, [(x, tall - 0.12, z), *shoulders, *hands, *feet])
    _cast(canvas, x, z, 0.35)
    for foot, leg in legs:
        top, bottom = x + leg * wide, x + leg * wide + foot
        corners = [(top - 0.11, hip, z), (top + 0.11, hip, z), (bottom + 0.07, 0, z)]
        canvas.fill([*corners, (bottom - 0.08, 0, z)], trousers, Id.PERSON)
    torso = [(x - wide, neck, z), (x + wide, neck, z), (x + 0.9 * wide, hip - 0.08, z)]
    canvas.fill([*torso, (x - 0.9 * wide, hip - 0.08, z)], coat, Id.PERSON)
    for arm in arms:
        shoulder, hand = x + arm * wide, x + arm * (wide + 0.06) + stride * arm
        corners = [(shoulder - 0.06, neck, z), (shoulder + 0.06, neck, z), (hand + 0.05, hip, z)]
        canvas.fill([*corners, (hand - 0.05, hip, z)], coat * 0.8, Id.PERSON)
    canvas.disc(x, tall - 0.12, z, 0.125, skin, Id.PERSON)
    canvas.disc(x, tall - 0.06, z, 0.11, rng.uniform(20, 110, 3), Id.PERSON)


def _cast(canvas: Canvas, x: float, z: float, reach: float) -> None:
    spread = x - canvas.sun * reach
    ground = [(x - 0.3 * reach, 0, z - 0.3 * reach), (spread, 0, z - 0.2 * reach)]
    canvas.shade([*ground, (spread, 0, z + 0.5 * reach), (x, 0, z + 0.6 * reach)], 0.35)
