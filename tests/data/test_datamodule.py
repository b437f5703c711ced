"""DataModule: loaders, reproducible samples, and checks before training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from hrseg.data import CamVid
from hrseg.data.dataset import Key
from hrseg.errors import ConfigError, DataError
from hrseg.utils.augmentations import AUGMENTATIONS
from tests.camvid_tree import make_camvid

SMALL = {"crop_size": (32, 40), "workers": 0}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=7, val=3)


def make_data(root: Path, **arguments) -> CamVid:
    data = CamVid(str(root), **{"batch_size": 2, **SMALL, **arguments})
    data.setup("fit")
    return data


def epoch(data: CamVid, number: int) -> list[dict]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(number)
    return list(loader)


def same(first: list[dict], second: list[dict]) -> bool:
    return len(first) == len(second) and all(
        a["name"] == b["name"]
        and torch.equal(a["image"], b["image"])
        and torch.equal(a["mask"], b["mask"])
        for a, b in zip(first, second, strict=True)
    )


def test_training_batches_are_uint8_crops_of_different_images_without_a_partial_batch(root):
    batches = epoch(make_data(root), 0)
    names = [name for batch in batches for name in batch["name"]]
    assert len(names) == 6 == len(set(names))
    batch = batches[0]
    assert batch["image"].shape == (2, 3, 32, 40) and batch["image"].dtype == torch.uint8
    assert batch["mask"].shape == (2, 32, 40) and batch["mask"].dtype == torch.uint8


def test_validation_loads_each_image_once_at_its_size(root):
    items = list(make_data(root).val_dataloader())
    assert [item["name"] for item in items] == [["000"], ["001"], ["002"]]
    assert items[0]["image"].shape == (1, 3, 48, 64)
    assert items[0]["mask"].unique().tolist() == [0, 1, 2, 255]


def test_epochs_differ_and_are_reproducible(root):
    data = make_data(root)
    first, second = epoch(data, 0), epoch(data, 1)
    assert not same(first, second)
    assert same(first, epoch(make_data(root), 0)) and same(second, epoch(make_data(root), 1))
    assert not same(first, epoch(make_data(root, seed=1), 0))


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
@pytest.mark.parametrize("options", [{}, {"augment": list(AUGMENTATIONS), "crop_size": (40, 40)}])
def test_samples_do_not_depend_on_the_number_of_workers(root, context, options):
    data = make_data(root, workers=2, **options)
    loader = data.train_dataloader()
    loader.multiprocessing_context = context
    loader.sampler.set_epoch(3)
    assert loader.persistent_workers
    assert same(list(loader), epoch(make_data(root, **options), 3))


def test_a_single_sample_of_an_epoch_can_be_reproduced(root):
    data = make_data(root)
    batch = epoch(data, 5)[1]
    index = data.train_dataset.names.index(batch["name"][0])
    assert torch.equal(data.train_dataset[Key(index, epoch=5)]["image"], batch["image"][0])


def test_batch_size_is_global_and_divisible(root):
    data = make_data(root, batch_size=4)
    data.trainer = SimpleNamespace(global_rank=0, world_size=2, accumulate_grad_batches=2)
    assert [len(batch["name"]) for batch in data.train_dataloader()] == [1, 1]
    data.batch_size = 6
    with pytest.raises(ConfigError, match=r"batch_size 6 .*2 devices x 2 accumulated[\s\S]*of 4"):
        data.train_dataloader()


def test_fewer_images_than_a_batch_are_refused_before_training(root):
    data = CamVid(str(root), batch_size=8, **SMALL)
    with pytest.raises(ConfigError, match=r"7 training images .* one batch of 8.[\s\S]*to 7"):
        data.check()


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"workers": -1}, {"class_uniform": 1.1}])
def test_options_out_of_range_are_refused(root, arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        CamVid(str(root), **arguments)


def test_equal_images_in_both_splits_are_an_error(root):
    with pytest.raises(DataError, match="7 images are in the training and in the validation"):
        CamVid(str(root), batch_size=2, val_split="train", **SMALL).check()


def test_check_of_validation_works_without_training_images(tmp_path):
    root = make_camvid(tmp_path, train=0, val=1)
    data = CamVid(str(root), **SMALL)
    data.check("validate")
    assert data.train_dataset is None and len(data.val_dataset) == 1
    with pytest.raises(DataError, match="contains no images"):
        CamVid(str(root), **SMALL).check()


def test_the_transform_of_a_data_set_uses_its_flip_pairs(root):
    class Mirrored(CamVid):
        flip_pairs = ((0, 1),)

    data = Mirrored(str(root), flip=1.0, crop_size=(48, 64), scales=(1, 1), workers=0)
    data.setup("fit")
    mask = np.asarray(Image.open(root / "trainannot/000.png"))
    flipped = np.array([1, 0, 2] + 8 * [0] + [255], np.uint8)[mask[:, ::-1]]
    np.testing.assert_array_equal(data.train_dataset[0]["mask"].numpy(), flipped)
