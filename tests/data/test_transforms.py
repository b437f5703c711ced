"""The one warp equals resize + pad + crop + flip; the draws are the official ones."""

import collections
import pickle
import random

import albumentations as A
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hrseg.data.transforms import TrainTransform, Window, crop_image, crop_mask
from hrseg.errors import ConfigError, DataError
from hrseg.utils.geometry import scaled_size
from tests import paths

GOLDEN = np.load(paths.GOLDEN / "random_scale_crop.npz")
# OpenCV 4 rounds the positions of a warp to 1/32 pixel.
GREY_LEVELS = 1 if int(cv2.__version__.split(".")[0]) >= 5 else 2
RNG = np.random.default_rng(0)
IMAGE = cv2.resize(RNG.integers(0, 256, (15, 20, 3), np.uint8), (160, 120))
MASK = cv2.resize(RNG.integers(0, 5, (15, 20), np.uint8), (160, 120), interpolation=0)


def reference(image: np.ndarray, mask: np.ndarray, window: Window) -> tuple[np.ndarray, ...]:
    """Do it in the long way: resize everything, pad, crop, flip."""
    size, (h, w) = window.size[::-1], window.crop_size
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    down, right = max(h - size[1], 0), max(w - size[0], 0)
    image = np.pad(image, ((0, down), (0, right), (0, 0)))
    mask = np.pad(mask, ((0, down), (0, right)), constant_values=255)
    rows, columns = slice(window.y, window.y + h), slice(window.x, window.x + w)
    step = -1 if window.flip else 1
    return image[rows, columns][:, ::step], mask[rows, columns][:, ::step]


@pytest.mark.parametrize("case", range(len(GOLDEN["cases"])))
def test_scale_crop_flip_equals_the_authors_code(case):
    scale, y, x, flip = GOLDEN["cases"][case]
    image, label = GOLDEN["image_bgr"], GOLDEN["label"]
    window = Window(scaled_size(label.shape, scale, 300), int(y), int(x), bool(flip), (128, 160))
    difference = np.abs(crop_image(image, window).astype(int) - GOLDEN[f"{case}/image_bgr"])
    assert difference.max() <= GREY_LEVELS
    assert (crop_mask(label, window) == GOLDEN[f"{case}/label"]).mean() >= 0.999


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_scale_crop_flip_equals_resize_pad_crop_flip(data):
    draw = data.draw
    size = scaled_size((120, 160), draw(st.floats(0.3, 2.5)))
    crop = draw(st.integers(20, 200)), draw(st.integers(20, 200))
    y, x = (draw(st.integers(0, max(s - c, 0))) for s, c in zip(size, crop, strict=True))
    window = Window(size, y, x, draw(st.booleans()), crop)
    image, mask = reference(IMAGE, MASK, window)
    assert np.abs(crop_image(IMAGE, window).astype(int) - image).max() <= GREY_LEVELS
    assert (crop_mask(MASK, window) == mask).mean() >= 0.999


def windows(transform: TrainTransform, count: int, size: tuple[int, int] = (120, 160)) -> list:
    draws = random.Random(0)
    return [transform.draw_window(size, MASK, None, draws) for _ in range(count)]


def test_official_scales_are_17_steps_of_a_tenth_the_last_included():
    drawn = windows(TrainTransform((4, 4), (0.5, 2.1, 0.1)), 600, (5, 1000))
    counts = collections.Counter(window.size[1] for window in drawn)
    assert sorted(counts) == [500 + 100 * i for i in range(17)]
    assert min(counts.values()) > 15  # 35 expected


def test_crops_reach_every_corner_and_half_are_flipped():
    drawn = windows(TrainTransform((118, 158), (1.0, 1.0)), 300)
    assert {window.y for window in drawn} == {0, 1, 2} == {window.x for window in drawn}
    assert 110 < sum(window.flip for window in drawn) < 190
    assert not any(w.flip for w in windows(TrainTransform((8, 8), flip=0.0), 50))
    assert all(w.flip for w in windows(TrainTransform((8, 8), flip=1.0), 50))


def test_flip_swaps_the_ids_of_a_pair():
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    image = np.zeros((1, 4, 3), np.uint8)
    for flip, expected in ((1.0, [255, 1, 2, 0]), (0.0, [0, 1, 2, 255])):
        transform = TrainTransform((1, 4), (1, 1), flip=flip, flip_pairs=[(1, 2)])
        assert transform(image, mask, (0, 0, 0))[1][0].tolist() == expected


def marked(row: int, column: int, side: int = 2) -> np.ndarray:
    """Return a mask (120, 160) of 0 with a square of 9."""
    mask = np.zeros((120, 160), np.uint8)
    mask[row : row + side, column : column + side] = 9
    return mask


@settings(max_examples=150, deadline=None)
@given(
    row=st.integers(0, 118), column=st.integers(0, 158), seed=st.integers(0, 99),
    scale=st.floats(0.5, 2.0), crop=st.tuples(st.integers(1, 400), st.integers(1, 400)),
)  # fmt: skip
def test_a_wanted_class_is_in_the_crop_at_any_scale_and_place(row, column, seed, scale, crop):
    transform = TrainTransform(crop, (scale, scale))
    assert (transform(IMAGE, marked(row, column), (seed,), 9)[1] == 9).any()


def test_a_wanted_class_is_anywhere_in_the_crop_and_the_crop_inside_the_image():
    transform = TrainTransform((8, 10), (1, 1), flip=0.0)
    for at, rows, columns in (((60, 80), 8, 10), ((0, 159), 1, 1), ((118, 3), 2, 4)):
        mask = marked(*at, side=1)
        crops = [transform(IMAGE, mask, (0, 0, index), 9)[1] for index in range(800)]
        places = {tuple(np.argwhere(crop == 9)[0].tolist()) for crop in crops}
        assert len(places) == rows * columns
        assert not any((crop == 255).any() for crop in crops)


def test_a_class_too_thin_for_the_scale_is_shown_at_the_own_size():
    for row in (60, 61):
        for squash in (None, (30, 160)):
            transform = TrainTransform((16, 16), (0.5, 0.5), squash=squash)
            crops = [transform(IMAGE, marked(row, 81, side=1), (0, 0, i), 9)[1] for i in range(9)]
            assert all((crop == 9).sum() == 1 for crop in crops)


def test_a_wanted_class_of_a_flip_pair_is_its_partner_when_mirrored():
    for flip, expected in ((0.0, 9), (1.0, 8)):
        transform = TrainTransform((8, 8), (1, 1), flip=flip, flip_pairs=[(8, 9)])
        assert (transform(IMAGE, marked(50, 50), (0,), 9)[1] == expected).any()


def test_a_wanted_class_that_the_mask_does_not_hold_is_an_error():
    with pytest.raises(DataError, match="no pixel of class 7"):
        TrainTransform((8, 8))(IMAGE, marked(0, 0), (0,), 7)


@pytest.mark.parametrize("photometric", [0.0, 1.0])
def test_a_sample_depends_only_on_its_seeds(photometric):
    transform = TrainTransform((64, 64), photometric=photometric)
    first = {
        key: transform(IMAGE, MASK, key) for key in [(1, 0, 0), (1, 0, 1), (1, 1, 0), (2, 0, 0)]
    }
    for key in reversed(first):  # another order, another process
        again = pickle.loads(pickle.dumps(transform))(IMAGE, MASK, key)
        np.testing.assert_array_equal(first[key][0], again[0])
        np.testing.assert_array_equal(first[key][1], again[1])
    images = [image.tobytes() for image, _ in first.values()]
    assert len(set(images)) == len(images)


def test_photometric_changes_the_image_and_never_the_mask():
    plain, jitter = TrainTransform((64, 64)), TrainTransform((64, 64), photometric=1.0)
    for index in range(5):
        (image, mask), (other, same) = (t(IMAGE, MASK, (0, 0, index)) for t in (plain, jitter))
        assert other.dtype == np.uint8 and (image != other).any()
        np.testing.assert_array_equal(mask, same)


@pytest.mark.parametrize("scales", [(1.0,), (2.0, 0.5), (0.5, 2.0, 0.0), (0.0, 2.0)])
def test_scales_out_of_range_are_refused(scales):
    with pytest.raises(ConfigError, match="positive and rising"):
        TrainTransform((32, 32), scales)


PIPELINE = A.Compose(
    [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5), A.Rotate(fill_mask=255), A.GaussNoise(p=1.0)]
)


def test_an_own_pipeline_acts_on_image_and_mask_by_the_seeds_of_the_sample():
    transform = TrainTransform((64, 80), pipeline=PIPELINE)
    first = [transform(IMAGE, MASK, (304, 0, index)) for index in range(12)]
    again = TrainTransform((64, 80), pipeline=pickle.loads(pickle.dumps(PIPELINE)))
    for index in reversed(range(12)):
        for one, other in zip(first[index], again(IMAGE, MASK, (304, 0, index)), strict=True):
            np.testing.assert_array_equal(one, other)
    assert len({image.tobytes() for image, _ in first}) == 12


def test_the_parts_of_a_pipeline_draw_independently():
    flips = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    transform = TrainTransform((120, 160), scales=(1.0, 1.0), flip=0, pipeline=flips)
    views = {transform(IMAGE, MASK, (index,))[1].tobytes() for index in range(40)}
    assert views == {view.tobytes() for view in (MASK, MASK[::-1], MASK[:, ::-1], MASK[::-1, ::-1])}


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (A.Normalize(), r"the image float32 \(64, 64, 3\)"),
        (
            A.Resize(32, 32),
            r"the image uint8 \(32, 32, 3\)(.|\n)*uint8 \(64, 64\), the size of the",
        ),
    ],
)
def test_a_pipeline_that_returns_another_kind_or_size_is_refused(part, message):
    with pytest.raises(DataError, match=message):
        TrainTransform((64, 64), pipeline=A.Compose([part]))(IMAGE, MASK, (0,))
