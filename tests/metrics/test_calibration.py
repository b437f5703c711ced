"""Expected calibration error, reliability bins, and the fit of a temperature."""

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing

from hrseg.metrics.binary import ThresholdCounts
from hrseg.metrics.calibration import (
    CalibrationCounts,
    calibration_summary,
    fit_temperature,
    negative_log_likelihood,
)


def synthetic_logits(count=60_000, classes=4, seed=0):
    """Return logits, and ids drawn from their softmax: the model is calibrated."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, classes, generator=generator)
    return logits, logits.softmax(1).multinomial(1, generator=generator)[:, 0]


def test_the_calibration_error_equals_a_calculation_by_hand():
    # 10 pixels of confidence 0.95 with 7 correct, 5 of confidence 0.45 with 3 correct, 2 ignored.
    confidence = torch.tensor([0.95] * 10 + [0.45] * 5 + [0.7] * 2)
    pred = torch.zeros(17, dtype=torch.uint8)
    truth = torch.tensor([0] * 7 + [1] * 3 + [0] * 3 + [1] * 2 + [255] * 2, dtype=torch.uint8)
    counts = CalibrationCounts()
    counts.update(confidence, pred, truth)
    summary = calibration_summary(counts.compute())
    expected = 10 / 15 * abs(0.95 - 0.7) + 5 / 15 * abs(0.45 - 0.6)
    assert summary["ece"] == pytest.approx(expected, abs=1e-5)
    filled = {i: row for i, row in enumerate(summary["bins"]) if row["pixels"]}
    assert set(filled) == {14, 6}  # 0.95 x 15 = 14.25, 0.45 x 15 = 6.75
    assert (filled[14]["pixels"], filled[14]["accuracy"]) == (10, 0.7)
    assert filled[6]["confidence"] == pytest.approx(0.45, abs=1e-5)


def test_a_confidence_of_one_is_in_the_last_bin():
    counts = CalibrationCounts()
    counts.update(torch.tensor([1.0, 0.0]), torch.tensor([1, 1]), torch.tensor([1, 0]))
    summary = calibration_summary(counts.compute())
    assert [row["pixels"] for row in summary["bins"]] == [1, *[0] * 13, 1]
    assert summary["ece"] == 0


def test_the_error_without_pixels_is_none():
    assert calibration_summary(CalibrationCounts().counts)["ece"] is None


@pytest.mark.parametrize("factor", [0.4, 1.0, 2.5])
def test_the_temperature_of_scaled_logits_is_the_factor(factor):
    logits, truth = synthetic_logits()
    temperature = fit_temperature(factor * logits, truth)
    assert temperature == pytest.approx(factor, rel=0.02)
    best = negative_log_likelihood(factor * logits, truth, temperature)
    assert best <= negative_log_likelihood(factor * logits, truth)


def test_the_likelihood_equals_numpy():
    logits, truth = synthetic_logits(200)
    z = logits.numpy().astype(np.float64) / 3
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    expected = -log_p[np.arange(200), truth.numpy()].mean()
    assert negative_log_likelihood(logits, truth, 3.0) == pytest.approx(expected, rel=1e-6)


def shares(rank, count):
    """Return the confidences, probabilities and ids of every `count`-th pixel."""
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(1001, generator=generator)
    truth = torch.randint(0, 2, (1001,), generator=generator).to(torch.uint8)
    return values[rank::count], truth[rank::count]


def count_pixels(rank, count, folder):
    if count > 1:
        address = f"file://{folder}/store"
        torch.distributed.init_process_group("gloo", address, rank=rank, world_size=count)
    calibration, thresholds = CalibrationCounts(), ThresholdCounts()
    values, truth = shares(rank, count)
    calibration.update(values, torch.ones_like(truth), truth)
    thresholds.update(values, truth)
    totals = [calibration.compute(), thresholds.compute()]
    torch.save(totals, f"{folder}/{count}-{rank}.pt")
    if count > 1:
        torch.distributed.destroy_process_group()


def test_two_processes_count_exactly_as_one(tmp_path):
    count_pixels(0, 1, tmp_path)
    torch.multiprocessing.spawn(count_pixels, (2, str(tmp_path)), nprocs=2)
    expected = torch.load(tmp_path / "1-0.pt")
    for rank in (0, 1):
        totals = torch.load(tmp_path / f"2-{rank}.pt")
        assert all(map(torch.equal, totals, expected))
