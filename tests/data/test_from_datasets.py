"""DataModule of map-style datasets: accepted items, training, and errors."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import hrseg
from hrseg.errors import ConfigError, DataError
from tests.conftest import silent_trainer, tiny_task

IMAGE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
MASK = (np.indices((70, 90)).sum(0) // 40 % 3).astype(np.uint8)
TENSORS = torch.from_numpy(IMAGE).permute(2, 0, 1), torch.from_numpy(MASK).long()


def data_of(train, val=None, **options):
    options = {"batch_size": 2, "crop_size": (64, 64), "workers": 0, **options}
    return hrseg.data.from_datasets(train, val or train, class_names=["a", "b", "c"], **options)


@pytest.mark.parametrize(
    "item",
    [
        (IMAGE, MASK),
        {"image": IMAGE, "mask": MASK.astype(np.int64)},
        (Image.fromarray(IMAGE), Image.fromarray(MASK)),
        TENSORS,
        (TENSORS[0], TENSORS[1][None]),
    ],
    ids=["arrays", "dict", "pil", "tensors", "mask of one channel"],
)
def test_all_accepted_kinds_of_items_make_the_same_batch(item):
    data = data_of([item] * 4)
    data.setup("validate")
    batch = next(iter(data.val_dataloader()))
    assert torch.equal(batch["image"][0], TENSORS[0])
    assert torch.equal(batch["mask"][0].long(), TENSORS[1])


def test_a_plain_trainer_trains_and_scores(tmp_path):
    data = data_of([(IMAGE, MASK)] * 4, [(IMAGE, MASK), (IMAGE[:64], MASK[:64])])
    data.check()
    trainer = silent_trainer(tmp_path, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        trainer.fit(tiny_task(["a", "b", "c"]), data)
    assert not [w for w in caught if "You have overridden" in str(w.message)]
    assert trainer.global_step == 2
    assert 0 <= trainer.callback_metrics["val/miou"] <= 100


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((IMAGE / 255, MASK), r"item 0 of the train dataset: the image is float64 \(70, 90, 3\)"),
        ((IMAGE, MASK[:10]), r"the image is \(70, 90\), the mask \(10, 90\)"),
        ((IMAGE, MASK + 7), r"the mask has the ids 7, 8, 9.\nExpected: 0..2"),
        ((IMAGE, MASK / 2), "the mask is float64"),
        ({"pixel_values": IMAGE, "labels": MASK}, "with the keys pixel_values, labels"),
        (IMAGE, "is a ndarray"),
    ],
)
def test_invalid_items_are_refused_before_training(item, message):
    with pytest.raises(DataError, match=message):
        data_of([item] * 4, [(IMAGE, MASK)]).check()


def test_options_that_need_files_are_refused():
    with pytest.raises(ConfigError, match="cache needs image and mask files"):
        data_of([(IMAGE, MASK)], cache="folder")


def test_custom_transforms_and_the_check_of_names_are_as_for_files():
    data = data_of(
        [(IMAGE, MASK)] * 2, transform=lambda image, mask: {"image": image, "mask": mask}
    )
    assert len(data.transform.stages) == 1
    with pytest.raises(ConfigError, match="class_names has 'a' twice"):
        hrseg.data.from_datasets([], [], class_names=["a", "a"])


class DyingList(list):
    def __getitem__(self, index):
        if index == 5:
            os._exit(7)
        return IMAGE, MASK


def test_a_dead_worker_is_an_error_with_its_item():
    data = data_of(DyingList([None] * 6), workers=1)
    data.setup("validate")
    with pytest.raises(DataError, match=r"exit code 7\), at sample 5: item 5 of the val dataset"):
        list(data.val_dataloader())
