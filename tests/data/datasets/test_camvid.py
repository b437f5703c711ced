"""CamVid: class facts of SegNet, void pixels, and the check of the real data."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data import CamVid
from hrseg.errors import DataError
from tests.camvid_tree import make_camvid
from tests.paths import CAMVID as REAL


def test_class_facts_are_those_of_segnet():
    assert CamVid.class_names[:4] == ("Sky", "Building", "Pole", "Road")
    assert CamVid.class_names[8:] == ("Car", "Pedestrian", "Bicyclist")
    assert len(CamVid.class_names) == len(CamVid.palette) == len(CamVid.class_weights) == 11
    assert CamVid.palette[4] == (60, 40, 222) and CamVid.palette[10] == (0, 128, 192)
    assert CamVid.class_weights[0] == 0.2595 and CamVid.class_weights[6] == 9.6446


def test_void_is_ignored_and_id_12_is_unknown(tmp_path):
    root = make_camvid(tmp_path)
    mask = CamVid(str(root)).dataset("train")[0]["mask"]
    raw = np.asarray(Image.open(root / "trainannot/000.png"))
    np.testing.assert_array_equal(mask.numpy() == 255, raw == 11)
    Image.fromarray(np.full((48, 64), 12, np.uint8)).save(root / "valannot/000.png")
    with pytest.raises(DataError, match=r"valannot/000\.png: unknown id 12 \(3072 pixels\)"):
        CamVid(str(root), batch_size=2).check()


def test_a_missing_root_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"folder .*nowhere/val does not exist.\n.*data\.root"):
        CamVid(str(tmp_path / "nowhere")).check()


@pytest.mark.skipif(not REAL.is_dir(), reason="no CamVid: set HRSEG_CAMVID")
def test_the_real_camvid_passes_the_check_and_has_every_class():
    data = CamVid(str(REAL))
    data.check()
    assert (len(data.train_dataset), len(data.val_dataset)) == (367, 101)
    masks = [data.val_dataset[i]["mask"].flatten() for i in range(0, 101, 5)]
    counts = sum(np.bincount(mask, minlength=256) for mask in masks)
    assert (counts[:11] > 0).all() and counts[11:255].sum() == 0
    assert counts[:11].argmax() in (1, 3)  # building or road


@pytest.mark.parametrize("given", ["camvid/train", "."])
def test_the_right_root_is_suggested_from_one_level_away(camvid, tmp_path, given):
    with pytest.raises(DataError, match=rf"data\.root={camvid}\?"):
        CamVid(str(tmp_path / given)).files("val")
