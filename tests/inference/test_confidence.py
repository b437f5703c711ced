"""Confidence, temperature, threshold and pseudo-labels of a prediction."""

import cv2
import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F

import hrseg
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.large_images import predict_big
from hrseg.inference.prediction import Prediction
from hrseg.inference.tiling import predict_bands
from tests.conftest import batch_of, picture
from tests.untrained import save_untrained

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
AVERAGES = ("softmax", "exp_logits", "logits")
SCALES = (0.75, 1.0, 1.5)


def evaluator(classes=2, gain=0.3, **arguments):
    """An evaluator of a fixed convolution at the size of the image."""
    weight = gain * torch.randn(classes, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    protocol = arguments.pop("protocol", Protocol())
    return Evaluator(
        lambda x: F.conv2d(x, weight, padding=1), lambda x: x.float() / 60 - 2, protocol,
        **arguments,
    )  # fmt: skip


def logits_of(evaluate, image):
    return evaluate.model(evaluate.normalize(image))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("average", AVERAGES)
def test_the_confidence_is_the_largest_softmax_of_logits_by_temperature(average, temperature):
    evaluate = evaluator(4, protocol=Protocol(average=average), temperature=temperature)
    image = batch_of(picture((40, 60)))
    result = evaluate(image, confidence=True)
    shares = (logits_of(evaluate, image) / temperature).softmax(1)[0]
    torch.testing.assert_close(result.confidence, shares.amax(0), rtol=1e-4, atol=1e-5)
    assert torch.equal(result.pred, evaluate(image).pred)
    assert result.foreground is None


@pytest.mark.parametrize("average", AVERAGES)
def test_a_temperature_changes_no_class_and_some_confidence(average):
    protocol = Protocol(scales=SCALES, flip=True, average=average)
    image = batch_of(picture((50, 70)))
    plain = evaluator(5, 1.5, protocol=protocol)(image, confidence=True)
    for temperature in (0.3, 4.0):
        cooled = evaluator(5, 1.5, protocol=protocol, temperature=temperature)
        result = cooled(image, confidence=True)
        assert torch.equal(result.pred, plain.pred)
        assert (result.confidence < plain.confidence).float().mean() in (0.0, 1.0) or (
            (result.confidence - plain.confidence).abs().max() > 0.01
        )


def test_the_confidence_of_several_scales_is_the_share_of_the_summed_scores():
    evaluate = evaluator(3, protocol=Protocol(scales=SCALES, average="exp_logits"))
    result = evaluate(batch_of(picture((40, 60))), keep_scores=True, confidence=True)
    shares = (result.scores / result.scores.sum(1))[0]
    torch.testing.assert_close(result.confidence, shares.amax(0))


def test_logits_beyond_the_range_of_exp_have_a_confidence():
    evaluate = evaluator(3, 30.0, protocol=Protocol(average="exp_logits"))
    result = evaluate(batch_of(picture((40, 60))), confidence=True)
    assert result.confidence.isfinite().all() and result.confidence.amax() <= 1


@pytest.mark.parametrize("foreground", [0, 1])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_threshold_decides_each_pixel_by_its_probability(foreground, average, temperature):
    protocol = Protocol(average=average, threshold=0.3)
    evaluate = evaluator(protocol=protocol, foreground=foreground, temperature=temperature)
    image = batch_of(picture((40, 60)))
    result = evaluate(image, confidence=True)
    share = logits_of(evaluate, image).softmax(1)[0, foreground]
    torch.testing.assert_close(result.foreground, share)
    assert 0.05 < (result.pred == foreground).float().mean() < 0.95
    assert ((result.pred == foreground) == (share >= 0.3)).float().mean() > 0.999
    likelier = evaluator(protocol=Protocol(average=average), foreground=foreground)(image)
    assert not torch.equal(likelier.pred, result.pred)


def test_a_threshold_applies_to_every_scale_and_to_the_mean_of_several():
    protocol = Protocol(scales=SCALES, average="logits", threshold=0.4)
    result = evaluator(protocol=protocol)(
        batch_of(picture((40, 60))), keep_scores=True, confidence=True
    )
    share = (result.scores / 3).softmax(1)[0, 1]
    assert ((result.pred == 1) == (share >= 0.4)).float().mean() > 0.999
    torch.testing.assert_close(result.foreground, share)


def test_a_threshold_is_refused_for_three_classes(tmp_path):
    predictor = hrseg.load(save_untrained(tmp_path / "model.ckpt"))
    with pytest.raises(ConfigError, match=r"threshold is 0\.3, but the model has 3 classes"):
        predictor.with_protocol(threshold=0.3).predict(picture((40, 60)))


def test_tiles_have_the_confidence_and_the_threshold_of_the_whole_image():
    rows = picture((64, 96))
    evaluate = evaluator(protocol=Protocol(threshold=0.3), temperature=2.0)
    strided = Evaluator(
        lambda x: F.avg_pool2d(evaluate.model(x), 4), evaluate.normalize, evaluate.protocol,
        temperature=2.0,
    )  # fmt: skip
    bands = predict_bands(strided, lambda a, b: rows[a:b], (64, 96), 128, 32, confidence=True)
    tiled = np.concatenate([band for _, band in bands])
    whole = strided(batch_of(rows), confidence=True)
    assert np.array_equal(tiled[..., 0], whole.pred.numpy())
    assert abs(tiled[..., 1] - 255 * whole.confidence.numpy()).max() < 0.51


def prediction(**arguments):
    mask, palette = np.array([[0, 1, 1, 0]], np.uint8), [[0, 0, 0], [255, 0, 0]]
    return Prediction(np.zeros((1, 4, 3), np.uint8), mask, ["a", "b"], palette, **arguments)


def test_pseudo_labels_are_255_below_the_confidence():
    sure = prediction(confidence=np.array([[0.89, 0.91, 0.5, 1.0]], np.float32))
    assert sure.confidence_map().tolist() == [[227, 232, 128, 255]]
    assert sure.pseudo_labels(0.9).tolist() == [[255, 1, 255, 0]]
    with pytest.raises(ConfigError, match="confidence was not computed"):
        prediction().pseudo_labels(0.9)


def test_probabilities_and_confidence_use_the_temperature_of_the_checkpoint(tmp_path):
    path = save_untrained(tmp_path / "model.ckpt")
    content = torch.load(path, weights_only=True)
    content["hrseg"]["temperature"] = 2.5
    torch.save(content, tmp_path / "calibrated.ckpt")
    image = picture((40, 60))
    plain, calibrated = (
        hrseg.load(file).predict(image, scores=True, confidence=True)
        for file in (path, tmp_path / "calibrated.ckpt")
    )
    assert np.array_equal(plain.mask, calibrated.mask)
    np.testing.assert_allclose(calibrated.probabilities().max(0), calibrated.confidence, rtol=1e-5)
    powers = plain.probabilities().astype(np.float64) ** (1 / 2.5)
    np.testing.assert_allclose(calibrated.probabilities(), powers / powers.sum(0), atol=1e-5)


def test_a_large_image_gets_a_second_file_and_pseudo_labels(tmp_path):
    predictor = hrseg.load(save_untrained(tmp_path / "model.ckpt"))
    predictor.evaluator.temperature = 20.0
    cv2.imwrite(str(tmp_path / "a.png"), picture((200, 300))[..., ::-1])
    files = [tmp_path / name for name in ("plain.tif", "mask.tif", "confidence.tif")]
    predict_big(predictor, tmp_path / "a.png", files[0], 64, 32)
    predict_big(predictor, tmp_path / "a.png", files[1], 64, 32, confidence=files[2], pseudo=0.9)
    plain, mask, sureness = (rasterio.open(file).read(1) for file in files)
    unsure = sureness < 229.5
    assert 0 < unsure.mean() < 1
    assert np.array_equal(mask, np.where(unsure, 255, plain))
