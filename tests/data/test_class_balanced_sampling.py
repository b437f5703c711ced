"""Class-balanced sampling: the images of each class, the draw, and the training crops."""

import collections
from pathlib import Path

import numpy as np
import pytest

from hrseg.data import Folder
from hrseg.data.dataset import Key
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.samplers import ClassDraw, images_by_class
from hrseg.errors import DataError
from tests.conftest import picture, save_image

NAMES = ("left", "right", "rare")
READ = MaskReader(id_table(3, None, [255]), "Repair it.")


def make_tree(root: Path) -> Path:
    """Write 20 masks, half "left", half "right"; one has "rare" on 1 % of it, 4x12 pixels."""
    for split, count in (("train", 20), ("val", 2)):
        for index in range(count):
            mask = np.repeat(np.arange(2, dtype=np.uint8), 40)[None].repeat(60, 0)
            if (split, index) == ("train", 7):
                mask[50:54, 5:17] = 2
            save_image(root / f"images/{split}/{index:02}.png", picture((60, 80), (index,)))
            save_image(root / f"masks/{split}/{index:02}.png", mask)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_tree(tmp_path_factory.mktemp("rare"))


def make_data(root: Path, **arguments) -> Folder:
    arguments = {"batch_size": 4, "crop_size": (32, 48), "workers": 0, **arguments}
    data = Folder(str(root), NAMES, **arguments)
    data.setup("fit")
    return data


def epochs(data: Folder, count: int) -> list[dict]:
    loader = data.train_dataloader()
    batches = []
    for epoch in range(count):
        loader.sampler.set_epoch(epoch)
        batches += list(loader)
    return batches


def share_with(batches: list[dict], train: int) -> float:
    return float(np.mean([(mask == train).any() for batch in batches for mask in batch["mask"]]))


def masks_of(folder: Path, *ids: list[int]) -> list[tuple[Path, Path]]:
    return [
        (folder / f"{i}.jpg", save_image(folder / f"{i}.png", np.array([row], np.uint8)))
        for i, row in enumerate(ids)
    ]


def test_each_class_has_the_images_whose_masks_contain_it(tmp_path):
    files = masks_of(tmp_path, [0, 0, 255], [1, 0, 2], [255, 255, 255], [1, 1, 1])
    files.insert(2, (tmp_path / "without a mask.jpg", None))
    images = images_by_class(files, READ, NAMES, workers=2)
    assert images == {0: [0, 1], 1: [1, 4], 2: [1]}


def test_a_class_without_an_image_is_left_out_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="never draws 1 of 3 classes.*: right$"):
        images = images_by_class(masks_of(tmp_path, [0, 2]), READ, NAMES)
    assert images == {0: [0], 2: [0]}
    with pytest.raises(DataError, match="none of 1 training masks"):
        images_by_class(masks_of(tmp_path, [255, 255]), READ, NAMES)


def test_classes_and_the_images_of_a_class_are_drawn_uniformly():
    draw = ClassDraw(0.5, {0: list(range(18)), 4: [3, 19], 7: [19]})
    random = np.random.default_rng(1)
    drawn = [draw.draw(random) for _ in range(6000)]
    pairs = collections.Counter(pair for pair in drawn if pair)
    assert abs(sum(pairs.values()) - 3000) < 150  # 4 standard deviations: 155
    classes = collections.Counter(wanted for _, wanted in pairs.elements())
    assert set(classes) == {0, 4, 7} and all(abs(n - 1000) < 110 for n in classes.values())
    assert abs(pairs[3, 4] - pairs[19, 4]) < 130 and set(pairs) >= {(i, 0) for i in range(18)}


def test_a_rare_class_is_in_its_share_of_the_crops(root):
    # In 1 of 20 images, on 1 % of it: by chance it is in at most 1 of 20 crops.
    assert share_with(epochs(make_data(root), 20), 2) <= 0.05
    for share in (0.5, 1.0):
        expected = share / len(NAMES)
        deviation = (expected * (1 - expected) / 400) ** 0.5
        crops = epochs(make_data(root, class_uniform=share), 20)
        assert share_with(crops, 2) > expected - 3 * deviation


def test_the_same_class_of_the_same_image_is_another_crop_at_another_position(root):
    dataset = make_data(root, class_uniform=1.0).train_dataset
    keys = [Key(7, wanted=2, position=position) for position in range(4)] + [Key(7)]
    assert len({dataset[key]["image"].numpy().tobytes() for key in keys}) == 5


def test_check_reads_the_masks_once_and_setup_does_not_read_them_again(root, monkeypatch):
    data = Folder(str(root), NAMES, class_uniform=0.5)
    data.check()
    assert data.class_draw.images[2] == [7] and len(data.class_draw.images[0]) == 20
    monkeypatch.setattr("hrseg.data.datamodule.images_by_class", lambda *_: pytest.fail("again"))
    data.setup("fit")
