import numpy as np
import pytest
import torch
from PIL import Image

import hrseg
from hrseg.errors import ConfigError, DataError
from hrseg.utils.memory import OutOfMemory
from tests.conftest import batch_of, picture, save_image, tiny_task
from tests.golden_weights import official_weights
from tests.untrained import save_checkpoint

SIZE = (40, 56)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A run folder with an untrained model of two classes, one with HTML as its name."""
    run = tmp_path_factory.mktemp("run")
    task = tiny_task(["road", "<script>"], palette=[(9, 8, 7), (1, 2, 3)])
    save_checkpoint(task, run / "checkpoints" / "best.ckpt")
    return run, task.eval()


def test_a_run_folder_and_its_checkpoint_give_the_predictions_of_the_task(checkpoint, tmp_path):
    run, task = checkpoint
    image = picture(SIZE)
    with torch.inference_mode():
        expected = task(batch_of(image))[0].argmax(0).numpy()
    file = save_image(tmp_path / "a.png", image)
    for path in (run, run / "checkpoints" / "best.ckpt"):
        for prediction in hrseg.load(path).predict([image, Image.fromarray(image), file]):
            assert np.array_equal(prediction.mask, expected)
            assert prediction.class_names == ["road", "<script>"]
            assert prediction.palette[0] == [9, 8, 7]


def test_the_html_of_a_prediction_escapes_class_names(checkpoint):
    prediction = hrseg.load(checkpoint[0]).predict(picture(SIZE))
    prediction.mask[0, 0] = 1
    page = prediction._repr_html_()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert prediction.overlay().shape == (40, 56, 3)
    assert np.array_equal(np.array(prediction.to_pil()), prediction.mask)
    assert prediction.to_pil().getpalette()[:3] == [9, 8, 7]
    assert sum(prediction.class_areas().values()) == pytest.approx(1)


def test_a_checkpoint_without_metadata_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "none.ckpt")
    with pytest.raises(ConfigError, match="no HRNet weights"):
        hrseg.load(tmp_path / "none.ckpt")
    torch.save(official_weights("w18_small_v1"), tmp_path / "other.ckpt")
    with pytest.raises(ConfigError, match="no 'hrseg' entry"):
        hrseg.load(tmp_path / "other.ckpt")


def test_a_checkpoint_is_predicted_with_its_own_protocol(tmp_path):
    protocol = hrseg.Protocol(resize=(48, 64), flip=True, average="exp_logits")
    task = tiny_task(["a", "b", "c"], protocol=protocol).eval()
    predictor = hrseg.load(save_checkpoint(task, tmp_path / "best.ckpt"))
    assert predictor.protocol == protocol
    image = picture((80, 50))
    task.on_test_epoch_start()
    assert np.array_equal(predictor.predict(image).mask, task.evaluator(batch_of(image)).pred)


def test_another_protocol_shares_the_weights(checkpoint):
    predictor = hrseg.load(checkpoint[0])
    other = predictor.with_protocol(scales=(0.5, 1.0), flip=True)
    assert other.model is predictor.model
    assert (predictor.protocol.scales, other.protocol.scales) == ((1.0,), (0.5, 1.0))
    once, twice = (p.predict(picture(SIZE), scores=True).scores for p in (predictor, other))
    assert abs(once - twice).max() > 1e-4
    with pytest.raises(ConfigError, match="scale: unknown key"):
        predictor.with_protocol(scale=2.0)


@pytest.mark.parametrize("average", ["softmax", "exp_logits", "logits"])
def test_probabilities_sum_to_1_with_every_averaging_rule(checkpoint, average):
    predictor = hrseg.load(checkpoint[0]).with_protocol(average=average, scales=(0.75, 1.0))
    prediction = predictor.predict(picture(SIZE), scores=True)
    assert prediction.scores.shape == (2, *SIZE)
    probabilities = prediction.probabilities()
    assert abs(probabilities.sum(0) - 1).max() < 1e-5
    assert (probabilities.argmax(0) == prediction.mask).all()
    with pytest.raises(ConfigError, match="The scores were not kept"):
        predictor.predict(picture(SIZE)).probabilities()


def test_an_unknown_precision_is_refused(checkpoint):
    with pytest.raises(ConfigError, match="unknown precision 'fp16'"):
        hrseg.load(checkpoint[0], precision="fp16")


def test_scores_are_float32_with_reduced_precision(checkpoint):
    predictors = [hrseg.load(checkpoint[0], precision=name) for name in ("32", "bf16")]
    full, half = (p.predict(picture(SIZE), scores=True).scores for p in predictors)
    assert half.dtype == np.float32
    assert 0 < abs(full - half).max() < 0.01


def test_an_out_of_memory_error_contains_the_size_of_the_image(checkpoint, monkeypatch):
    predictor = hrseg.load(checkpoint[0])

    def fail(*arguments, **options):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 TB")

    monkeypatch.setattr(predictor, "evaluator", fail)
    with pytest.raises(OutOfMemory, match=r"out of memory: an image of 56x40 by the protocol"):
        predictor.segment(picture(SIZE))


def test_tensors_of_both_layouts_and_a_call_give_the_same_mask(checkpoint):
    predictor, image = hrseg.load(checkpoint[0]), picture(SIZE)
    expected = predictor.predict(image).mask
    tensor = batch_of(image)[0]
    for layout in (tensor, torch.from_numpy(image)):
        assert np.array_equal(predictor(layout).mask, expected)
    (prediction,) = predictor([tensor])
    assert np.array_equal(prediction.mask, expected)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            torch.zeros(3, 40, 56),
            r"The image is a tensor float32 \(3, 40, 56\).\nExpected: one RGB",
        ),
        (torch.zeros(2, 3, 40, 56, dtype=torch.uint8), r"uint8 \(2, 3, 40, 56\)(.|\n)*list\(batch"),
    ],
)
def test_float_tensors_and_batches_are_refused(checkpoint, tensor, message):
    with pytest.raises(DataError, match=message):
        hrseg.load(checkpoint[0]).predict(tensor)


def test_the_error_for_a_folder_contains_the_command_for_folders(checkpoint, tmp_path):
    with pytest.raises(DataError, match=r"is a folder.\nExpected: an image(.|\n)*hrseg predict"):
        hrseg.load(checkpoint[0]).predict(tmp_path)


def test_a_prediction_is_saved_as_png_only(checkpoint, tmp_path):
    prediction = hrseg.load(checkpoint[0]).predict(picture(SIZE))
    prediction.save(tmp_path / "new" / "mask.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "new" / "mask.png")), prediction.mask)
    with pytest.raises(ConfigError, match=r"mask.jpg does not end in .png"):
        prediction.save(tmp_path / "mask.jpg")
    assert not (tmp_path / "mask.jpg").exists()


def test_representations_are_one_line(checkpoint):
    predictor = hrseg.load(checkpoint[0])
    assert repr(predictor) == "Predictor(hrnet_w18_small_v1 + fcn, 2 classes, cpu)"
    prediction = predictor.predict(picture(SIZE))
    prediction.mask[:] = 0
    prediction.mask[:10] = 1
    assert repr(prediction) == "Prediction(40x56, road 75.0%, <script> 25.0%)"


def test_areas_of_two_classes_with_the_same_name_are_added(checkpoint):
    prediction = hrseg.load(checkpoint[0]).predict(picture(SIZE))
    prediction.class_names = ["road", "road"]
    assert prediction.class_areas() == {"road": pytest.approx(1)}
