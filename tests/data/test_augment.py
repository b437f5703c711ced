"""Augmentations by name: effect, limits, alignment of image and mask, seeds, refusals."""

import colorsys
import pickle
import random
import re

import cv2
import numpy as np
import pytest

from hrseg.data.augment import Augmentations, set_draws
from hrseg.data.options import complete
from hrseg.data.transforms import TrainTransform
from hrseg.errors import ConfigError
from hrseg.utils.augmentations import AUGMENTATIONS, NEEDS_RGB
from tests.data.test_transforms import IMAGE, MASK
from tests.paths import ROOT

GEOMETRIC = ("rotate90", "vflip", "rotate")
SIDE = 96


def augmentations(*parts, size=(SIDE, SIDE), ids=None):
    ids = np.arange(256, dtype=np.uint8) if ids is None else ids
    return Augmentations(complete({"augment": parts})["augment"], size, ids)


def applied(transform, image, mask, seed=0):
    set_draws(transform, np.random.default_rng(seed), random.Random(seed))
    result = transform(image=image, mask=mask)
    return result["image"], result["mask"]


def test_every_name_is_accepted_and_changes_the_image():
    image, mask = IMAGE[:SIDE, :SIDE], MASK[:SIDE, :SIDE]
    for name in AUGMENTATIONS:
        transform = augmentations({"name": name, "p": 1})
        outputs = [applied(transform, image, mask, seed) for seed in range(6)]
        assert sum((output != image).any() for output, _ in outputs) >= 3, name
        assert all(output.dtype == np.uint8 == ids.dtype for output, ids in outputs)
        if name not in (*GEOMETRIC, "coarse_dropout"):
            assert all(np.array_equal(mask, ids) for _, ids in outputs), name
        never, ids = applied(augmentations({"name": name, "p": 0}), image, mask)
        assert np.array_equal(never, image) and np.array_equal(ids, mask)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_sample_depends_only_on_its_seeds(name):
    parts = complete({"augment": [{"name": name, "p": 1}, "vflip"]})["augment"]
    transform = TrainTransform((64, 64), photometric=0.5, augment=parts)
    first = {key: transform(IMAGE, MASK, key) for key in [(1, 0, 0), (1, 0, 1), (1, 1, 0)]}
    for key in reversed(first):  # another order, another process
        cv2.setRNGSeed(7)
        again = pickle.loads(pickle.dumps(transform))(IMAGE, MASK, key)
        np.testing.assert_array_equal(first[key][0], again[0])
        np.testing.assert_array_equal(first[key][1], again[1])
    assert len({image.tobytes() for image, _ in first.values()}) == 3


@pytest.mark.parametrize("name", [*GEOMETRIC, "coarse_dropout"])
def test_image_and_mask_stay_aligned_and_padding_stays_ignored(name):
    """The mask is drawn into the image, next to a channel that is 0 in the padding."""
    mask = np.zeros((70, 60), np.uint8)
    cv2.ellipse(mask, (30, 30), (25, 12), 30, 0, 360, 1, -1)
    image = np.dstack([255 * mask, np.full_like(mask, 255), 0 * mask])
    parts = complete({"augment": [{"name": name, "p": 1}]})["augment"]
    transform = TrainTransform((SIDE, SIDE), (1, 1), augment=parts)
    for seed in range(20):
        output, ids = transform(image, mask, (seed,))
        valid = ids != 255
        assert 2500 < valid.sum() <= 70 * 60
        wrong = (output[..., 0] > 127) != (ids == 1)
        # Bilinear and nearest interpolation differ within half a pixel of a contour.
        assert wrong[valid].mean() <= (0.02 if name == "rotate" else 0)
        assert (output[..., 1] > 127)[valid].mean() >= (0.98 if name == "rotate" else 1)


def test_rotate90_gives_the_four_rotations_and_keeps_the_ids():
    mask = MASK[:SIDE, :SIDE]
    transform = augmentations(
        {"name": "rotate90", "p": 1}, ids=np.arange(256, dtype=np.uint8)[::-1].copy()
    )
    views = [applied(transform, mask, mask, seed)[1].tobytes() for seed in range(80)]
    assert set(views) == {np.rot90(mask, turns).tobytes() for turns in range(4)}
    assert min(map(views.count, views)) >= 8  # 20 expected


def test_vflip_swaps_the_ids_of_a_pair():
    parts = complete({"augment": [{"name": "vflip", "p": 1}]})["augment"]
    mask = np.array([[0], [1], [2], [255]], np.uint8).repeat(4, 1)
    transform = TrainTransform((4, 4), (1, 1), flip=0, flip_pairs=[(1, 2)], augment=parts)
    assert transform(np.zeros((4, 4, 3), np.uint8), mask, (0,))[1][:, 0].tolist() == [255, 1, 2, 0]
    both = TrainTransform((4, 4), (1, 1), flip=1, flip_pairs=[(1, 2)], augment=parts)
    assert both(np.zeros((4, 4, 3), np.uint8), mask, (0,))[1][:, 0].tolist() == [255, 2, 1, 0]


def angle(image, mask):
    """Return the angle of a bar of ones to the vertical, in degrees."""
    rows, columns = np.nonzero(mask == 1)
    return np.degrees(np.arctan2(np.cov(rows, columns)[0, 1], rows.var()))


BAR = np.zeros((SIDE, SIDE), np.uint8)
BAR[8:88, 47:49] = 1
DOT = np.zeros((SIDE, SIDE, 3), np.uint8)
DOT[48, 48] = 255
GREY = np.full((SIDE, SIDE, 3), 128, np.uint8)
RED = np.full((SIDE, SIDE, 3), (255, 0, 0), np.uint8)
STEP = np.dstack([100 + 50 * BAR] * 3)
# Name, options, image, measured quantity, its limit.
LIMITS = [
    ("rotate", {"limit": 10}, GREY, angle, 10),
    ("blur", {"limit": 8}, DOT, lambda image, _: (image.any(2).sum() ** 0.5 - 1) / 2, 3),
    ("noise", {"limit": 0.1}, GREY, lambda image, _: image.std() / 255, 0.1),
    ("brightness_contrast", {"brightness": 0.3, "contrast": 0}, GREY,
     lambda image, _: image.mean() / 255 - 128 / 255, 0.3),
    ("brightness_contrast", {"brightness": 0, "contrast": 0.4}, STEP,
     lambda image, _: np.ptp(image) / 50 - 1, 0.4),
    ("hue", {"limit": 30}, RED,
     lambda image, _: 360 * ((colorsys.rgb_to_hsv(*image[0, 0] / 255)[0] + 0.5) % 1 - 0.5), 30),
    ("gamma", {"limit": 0.3}, GREY, lambda image, _: np.log(image.mean() / 255)
     / np.log(128 / 255) - 1, 0.3),
    ("shadow", {"limit": 0.6}, GREY, lambda image, _: 1 - image.min() / 128, 0.6),
    ("coarse_dropout", {"holes": 1, "size": 0.5}, GREY,
     lambda image, _: (image == 0).any(2).any(1).sum() / SIDE, 0.5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "image", "measured", "limit"), LIMITS)
def test_the_strength_has_the_limit_of_the_option(name, options, image, measured, limit):
    transform = augmentations({"name": name, "p": 1, **options})
    values = [abs(measured(*applied(transform, image, BAR, seed))) for seed in range(60)]
    assert 0.8 * limit < max(values) <= 1.06 * limit


def test_dropped_pixels_are_black_and_ignored():
    transform = augmentations({"name": "coarse_dropout", "p": 1, "size": 0.3})
    image, mask = applied(transform, GREY, BAR)
    np.testing.assert_array_equal(mask == 255, (image == 0).all(2))
    assert 0.01 < (mask == 255).mean() < 0.6


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - set(NEEDS_RGB)))
@pytest.mark.parametrize("channels", [1, 5])
def test_images_of_16_bits_and_any_number_of_channels_are_accepted(name, channels):
    image = np.random.default_rng(0).integers(0, 2**16, (SIDE, SIDE, channels), np.uint16)
    image[0], image[1] = 0, 2**16 - 1
    transform = augmentations({"name": name, "p": 1})
    output, mask = applied(transform, image, BAR, seed=1)
    assert output.dtype == np.uint16 and output.shape == image.shape and mask.shape == BAR.shape
    if name in ("rotate90", "vflip"):
        np.testing.assert_array_equal(np.sort(output, axis=None), np.sort(image, axis=None))
    if name == "coarse_dropout":
        np.testing.assert_array_equal(output[mask != 255], image[mask != 255])


def test_rotate90_of_other_than_square_crops_is_refused():
    parts = complete({"augment": ["rotate90"]})["augment"]
    with pytest.raises(ConfigError, match=r"of 64x96 into 96x64.\nExpected: a square data"):
        TrainTransform((64, 96), augment=parts)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("vflop", r"data.augment\[0\] is 'vflop'.\nExpected: a known name. Did you mean: vflip"),
        ({"name": "blur", "limt": 3}, r"data.augment\[0\].limt: unknown key. Did you mean: limit"),
        ({"name": "blur", "limit": 99}, r"limit is 99.\nExpected: a whole number from 3 to 31"),
        ({"name": "vflip", "p": 1.5}, r"p is 1.5.\nExpected: a number from 0 to 1"),
        ({"p": 1}, r"Expected: a name, one of: rotate90, vflip"),
        (3, r"Expected: a name, one of: rotate90, vflip"),
    ],
)
def test_an_invalid_augmentation_is_refused_with_the_nearest_valid_one(part, message):
    with pytest.raises(ConfigError, match=message):
        complete({"augment": [part]})


def test_one_module_imports_albumentations():
    imports = re.compile(r"^\s*(import|from) albumentations", re.MULTILINE)
    files = (ROOT / "hrseg").rglob("*.py")
    importing = [path.name for path in files if imports.search(path.read_text())]
    assert importing == ["augment.py"]
