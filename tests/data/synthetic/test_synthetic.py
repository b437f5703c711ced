"""Synthetic scenes: the same arguments draw the same streets, with everything in them."""

import json

import numpy as np
import pytest
from PIL import Image

from hrseg.data import Synthetic
from hrseg.data.synthetic.canvas import CLASS_NAMES
from hrseg.data.synthetic.scene import generate_scene
from hrseg.errors import DataError

SMALL = {"num_train": 3, "num_val": 2, "image_size": (48, 64), "workers": 0, "batch_size": 2}
SCENES = [generate_scene(0, index, (96, 128)) for index in range(12)]


def test_a_scene_depends_only_on_seed_and_index():
    again = generate_scene(0, 3, (96, 128))
    np.testing.assert_array_equal(again[0], SCENES[3][0])
    np.testing.assert_array_equal(again[1], SCENES[3][1])
    different = {generate_scene(seed, i, (48, 64))[0].tobytes() for seed in (0, 1) for i in (0, 1)}
    assert len(different) == 4


@pytest.mark.parametrize("size", [(33, 47), (160, 90)])
def test_a_scene_has_the_size_asked_for(size):
    image, mask = generate_scene(1, 0, size)
    assert image.shape == (*size, 3) and mask.shape == size
    assert image.dtype == mask.dtype == np.uint8


def test_every_class_and_ignore_occur_in_a_dozen_scenes():
    counts = sum(np.bincount(mask.ravel(), minlength=256) for _, mask in SCENES)
    assert set(np.flatnonzero(counts)) == {*range(len(CLASS_NAMES)), 255}
    assert counts[:9].min() / counts.sum() > 0.001  # the rarest can be learned


def test_colour_does_not_determine_the_class():
    grey = [np.concatenate([image[mask == label].mean(1) for image, mask in SCENES])
            for label in range(len(CLASS_NAMES))]  # fmt: skip
    low, high = (np.array([np.quantile(g, q) for g in grey]) for q in (0.01, 0.99))
    assert ((low[:, None] < high) & (low < high[:, None])).all()


def test_data_set_is_written_once_and_read_back(tmp_path):
    root = tmp_path / "deep/scenes"
    data = Synthetic(str(root), **SMALL)
    data.check()
    assert (len(data.train_dataset), len(data.val_dataset)) == (3, 2)
    image, mask = data.dataset("val").read(1)
    np.testing.assert_array_equal(image, generate_scene(1, 1, (48, 64))[0])
    np.testing.assert_array_equal(mask, generate_scene(1, 1, (48, 64))[1])
    train = {data.train_dataset.read(i)[0].tobytes() for i in range(3)}
    assert train.isdisjoint({data.val_dataset.read(i)[0].tobytes() for i in range(2)})
    assert Image.open(root / "masks/train/0000.png").mode == "L"
    classes = json.loads((root / "classes.json").read_text())
    assert tuple(classes["classes"]) == Synthetic.class_names
    assert len(set(map(tuple, classes["palette"]))) == 9
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    Synthetic(str(root), **SMALL).check()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == written
    assert list(root.parent.iterdir()) == [root]  # no draft is left behind


def test_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hrseg.data.synthetic.dataset.generate_scene", stop)
    with pytest.raises(KeyboardInterrupt):
        Synthetic(str(tmp_path / "scenes"), **SMALL).prepare_data()
    assert list(tmp_path.iterdir()) == []


def test_root_with_other_scenes_or_files_is_not_changed(tmp_path):
    Synthetic(str(tmp_path / "scenes"), **SMALL).prepare_data()
    with pytest.raises(DataError, match=r"scenes holds[\s\S]*'train': 4[\s\S]*another data\.root"):
        Synthetic(str(tmp_path / "scenes"), **{**SMALL, "num_train": 4}).check()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(DataError, match="mine holds other files"):
        Synthetic(str(tmp_path / "mine"), **SMALL).check()
    assert (tmp_path / "mine/thesis.txt").read_text() == "years of work"


def test_root_that_cannot_be_written_is_a_data_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot write the synthetic data set"):
        Synthetic(str(tmp_path / "file/scenes"), **SMALL).prepare_data()
