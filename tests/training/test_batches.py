"""Batch validation of SegmentationTask in training and evaluation."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hrseg.errors import DataError
from tests.conftest import noise, silent_trainer, tiny_task

ITEM = noise(1)[0]
IMAGE, MASK = ITEM["image"], ITEM["mask"]
INVALID = {
    "tuple": ((IMAGE, MASK), "The batch is a list"),
    "keys": ({"pixel_values": IMAGE, "labels": MASK}, "with the keys pixel_values, labels"),
    "float image": ({"image": IMAGE / 255, "mask": MASK}, r"image is float32 \(2, 3, 64, 64\)"),
    "channels last": ({"image": IMAGE.permute(1, 2, 0), "mask": MASK}, "channels last: use image"),
    "mask of one channel": ({"image": IMAGE, "mask": MASK[None]}, r"mask is uint8 \(2, 1, 64, 64"),
    "float mask": ({"image": IMAGE, "mask": MASK.float()}, "The mask is float32"),
    "id": ({"image": IMAGE, "mask": MASK.clamp(37, 40)}, r"ids 37, 40.\nExpected: 0..1"),
    "negative id": ({"image": IMAGE, "mask": MASK.int() - 1}, r"ids -1, 254"),
}


@pytest.mark.parametrize(("item", "message"), INVALID.values(), ids=INVALID)
@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_the_error_for_an_invalid_batch_names_the_contract(item, message, stage, tmp_path):
    with pytest.raises(DataError, match=message) as error:
        getattr(silent_trainer(tmp_path), stage)(tiny_task(), DataLoader([item] * 2, 2))
    assert "Expected: " in str(error.value)
    assert "Fix: " in str(error.value)
    assert str(error.value).count("\n") < 4


def test_a_mask_of_another_size_is_refused_in_training_only(tmp_path):
    items = [{"image": IMAGE, "mask": MASK[:32]}] * 2
    with pytest.raises(DataError, match=r"mask is uint8 \(2, 32, 64\), but the image is"):
        silent_trainer(tmp_path).fit(tiny_task(), DataLoader(items, 2))
    task = tiny_task()
    silent_trainer(tmp_path).validate(task, DataLoader(items, 2), verbose=False)
    assert task.scores["images"] == 2


def test_float_images_are_refused_by_training_step_and_forward():
    batch = {"image": IMAGE[None] / 255, "mask": MASK[None]}
    for call in (lambda task: task.training_step(batch, 0), lambda task: task(batch["image"])):
        with pytest.raises(DataError, match=r"The images are float32.\nExpected: uint8 RGB"):
            call(tiny_task())


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int64])
def test_names_are_optional_and_all_integer_types_are_accepted(kind, tmp_path):
    items = [{"image": item["image"], "mask": item["mask"].to(kind)} for item in noise()]
    task = tiny_task()
    silent_trainer(tmp_path).fit(task, DataLoader(items, 2), DataLoader(items))
    assert task.scores["images"] == 4


def test_a_batch_of_several_images_gives_the_scores_of_single_images(tmp_path):
    task, results = tiny_task(), []
    for size in (1, 3):
        silent_trainer(tmp_path).validate(task, DataLoader(noise(5), size), verbose=False)
        results.append(task.scores)
    assert results[0] == results[1]
    assert results[0]["images"] == 5


def test_a_test_gives_the_scores_of_a_validation(tmp_path):
    task, loader = tiny_task(), DataLoader(noise(3))
    (validated,) = silent_trainer(tmp_path).validate(task, loader, verbose=False)
    scores = task.scores
    (tested,) = silent_trainer(tmp_path).test(task, loader, verbose=False)
    assert tested == {key.replace("val/", "test/"): value for key, value in validated.items()}
    assert task.scores == scores


def test_a_test_without_masks_has_no_scores(tmp_path):
    items = [{**item, "mask": torch.full((64, 64), 255, dtype=torch.uint8)} for item in noise(2)]
    task = tiny_task()
    assert silent_trainer(tmp_path).test(task, DataLoader(items), verbose=False) == [{}]


def test_predict_accepts_all_batch_forms(tmp_path):
    task, items = tiny_task(), noise(3)
    task.eval()
    with torch.inference_mode():
        expected = task(torch.stack([item["image"] for item in items])).argmax(1)
    forms = [items, [item["image"] for item in items], [(i["image"], i["mask"]) for i in items]]
    for form in forms:
        preds = silent_trainer(tmp_path).predict(task, DataLoader(form, batch_size=2))
        assert [tuple(pred.shape) for pred in preds] == [(2, 64, 64), (1, 64, 64)]
        assert np.mean(torch.cat(preds).numpy() == expected.numpy()) > 0.999
    with pytest.raises(DataError, match="The image is float32"):
        silent_trainer(tmp_path).predict(task, DataLoader([IMAGE / 255]))
