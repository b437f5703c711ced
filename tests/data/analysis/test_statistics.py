"""Class weights, mean and standard deviation: by hand and by NumPy."""

import math

import numpy as np
import pytest
from PIL import Image

from hrseg.data.analysis.check import check_splits, find_split
from hrseg.data.analysis.statistics import (
    enet_weights,
    median_frequency_weights,
    split_stats,
    sqrt_weights,
)
from hrseg.data.datasets.camvid import CamVid
from tests.camvid_tree import make_camvid
from tests.conftest import picture, save_image


def test_enet_weights_equal_the_formula_of_the_paper():
    weights = enet_weights([30, 10, 0])  # shares 3/4, 1/4
    assert weights[:2].tolist() == pytest.approx([1 / math.log(1.77), 1 / math.log(1.27)])
    assert math.isnan(weights[2])


def test_median_frequency_counts_only_the_images_with_the_class():
    # f = 1/2, 1/4, 1/10; the median is 1/4. The last class has no pixels.
    weights = median_frequency_weights([50, 25, 5, 0], [100, 100, 50, 0])
    assert weights[:3].tolist() == pytest.approx([0.5, 1.0, 2.5])
    assert math.isnan(weights[3])


def test_sqrt_weights_use_the_share_of_all_pixels():
    # p = 16/21, 4/21, 1/21; the median is 4/21.
    assert sqrt_weights([16, 4, 1]).tolist() == pytest.approx([0.5, 1.0, 2.0])


def test_weights_without_any_pixels_are_nan_without_a_warning(recwarn):
    for weights in (enet_weights([0, 0]), median_frequency_weights([0, 0], [0, 0]),
                    sqrt_weights([0, 0])):  # fmt: skip
        assert np.isnan(weights).all()
    assert not recwarn


def test_the_statistics_of_a_split_equal_numpy_and_are_ready_for_json(tmp_path):
    root = make_camvid(tmp_path / "camvid")
    save_image(root / "train/001.png", picture((30, 50), (5,)))
    save_image(root / "trainannot/001.png", np.zeros((30, 50), np.uint8))
    data = CamVid(str(root))
    split = find_split(data, "train")
    check_splits([split], data.mask_reader(), 0)
    stats = split_stats(split, CamVid.class_names)
    images, masks = (
        [np.asarray(Image.open(path)) for path in sorted((root / name).iterdir())]
        for name in ("train", "trainannot")
    )
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    np.testing.assert_allclose(stats["mean"], pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(stats["std"], pixels.std(0), rtol=1e-12)
    ids = np.concatenate([mask.ravel() for mask in masks])
    sky, building = stats["classes"][:2]
    assert sky["pixels"] == (ids == 0).sum()
    assert sky["share"] == (ids == 0).sum() / (ids != 11).sum()
    assert stats["ignored_pixels"] == (ids == 11).sum()
    assert (sky["images"], building["images"], stats["images"]) == (4, 3, 4)
    assert stats["classes"][5] == {
        "name": "Tree", "pixels": 0, "images": 0, "share": 0.0,
        "enet": None, "median_frequency": None, "sqrt_median": None,
    }  # fmt: skip
