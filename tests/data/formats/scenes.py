"""Drawn scenes with known polygons, and the parts of an imported folder."""

import json

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from hrseg.cli import main
from tests.conftest import picture, save_image

SIZE = (96, 128)
NAMES = ("road", "car", "tree")


def star(rng, size, radius):
    """Return a random polygon (N, 2): x, y in pixels, with corners around a centre."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(5, 12)))
    lengths = radius * rng.uniform(0.5, 1, len(angles))
    centre = rng.uniform((0, 0), size[::-1])
    return np.round(centre + lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1), 2)


def objects(seed, size=SIZE, radii=(45, 30, 20, 12, 7)):
    """Return pairs of class name and polygon, from large to small."""
    rng = np.random.default_rng(seed)
    return [(NAMES[i % 3], star(rng, size, radius)) for i, radius in enumerate(radii)]


def blob(seed, size=SIZE):
    """Return a mask (H, W) with a ragged outline and holes."""
    coarse = np.random.default_rng(seed).random((8, 10)).astype(np.float32)
    smooth = Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC)
    return np.asarray(smooth) > 0.6


def coco_pixels(polygon, size=SIZE):
    """Return the pixels (H, W) of a polygon by pycocotools."""
    lengths = coco_mask.frPyObjects([polygon.ravel().tolist()], *size)
    return coco_mask.decode(coco_mask.merge(lengths)).astype(bool)


def painted(layers, size=SIZE, empty=255):
    """Return ids (H, W) of pairs (id, pixels), the largest first."""
    ids = np.full(size, empty, np.uint8)
    for value, pixels in sorted(layers, key=lambda layer: -layer[1].sum()):
        ids[pixels] = value
    return ids


def truth(scene, names=NAMES, size=SIZE):
    """Return the ids (H, W) of a scene by pycocotools, 255 where nothing is."""
    return painted([(names.index(name), coco_pixels(points, size)) for name, points in scene], size)


def save_photo(path, seed=0, size=SIZE, **options):
    return save_image(path, picture(size, seed), **options)


def save_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def imported(source, out, *options):
    """Run `hrseg data import`; it must succeed. Return `out`."""
    assert main(["data", "import", str(source), str(out), *options]) == 0
    return out


def mask(out, name):
    """Return the ids of a mask of the imported folder."""
    with Image.open(out / "masks" / name) as image:
        assert image.mode == "P"
        return np.asarray(image)


def refused(source, tmp_path, capsys, *options):
    """Run an import that must fail and leave nothing behind; return its message."""
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(source)}
    code = main(["data", "import", str(source), str(tmp_path / "refused"), *options])
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(source)} == before
    message = capsys.readouterr().err
    assert code in (2, 3) and "Traceback" not in message
    assert "Expected: " in message and len(message.splitlines()) <= 4
    return message
