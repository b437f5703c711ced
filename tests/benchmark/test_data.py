"""`hrseg benchmark data`: rates, advice, and detection of data-bound training."""

import itertools
import json

import pytest

from hrseg.benchmark import data as module
from hrseg.benchmark.data import (
    benchmark_data,
    loading_rate,
    sample_seconds,
    verdict,
)
from hrseg.config.loader import load_config
from hrseg.training.factory import build_data
from tests.benchmark.conftest import output_with_table
from tests.camvid_tree import fit_overrides


@pytest.fixture
def config(camvid):
    return load_config("camvid_w18_small", fit_overrides(camvid))


RATES = {0: 3.0, 1: 4.0, 2: 8.0, 4: 15.0, 6: 20.0, 8: 20.5}


@pytest.mark.parametrize(
    ("workers", "wanted", "reading", "expected"),
    [
        (2, 12.0, 0.8, "data-bound: training needs 12 samples/s, data.workers=2 loads 8. "
         "Fix: data.workers=4 or `hrseg data cache`"),
        (2, 12.0, 0.3, "data-bound: training needs 12 samples/s, data.workers=2 loads 8. "
         "Fix: data.workers=4"),
        (2, 40.0, 0.8, "data-bound: training needs 40 samples/s, data.workers=2 loads 8. "
         "Fix: data.workers=6 (20 samples/s) or `hrseg data cache`"),
        (6, 40.0, 0.3, "data-bound: training needs 40 samples/s, data.workers=6 loads 20. "
         "Augmentation limits the rate"),
        (6, 1.0, 0.8, "not data-bound: loading needs 5 % of a training step"),
        (0, 1.0, 0.8, "data.workers=0 loads between the training steps, 25 % of the time. "
         "Fix: data.workers=1 loads during the steps"),
        (2, None, 0.8, "data.workers=2 loads 8 samples/s"),
    ],
)  # fmt: skip
def test_the_verdict_states_whether_training_is_data_bound_and_the_fix(
    workers, wanted, reading, expected
):
    assert verdict(RATES, workers, wanted, reading) == expected


def test_reading_augmentation_and_the_rate_are_measured_separately(config, monkeypatch):
    # The clock advances by one second with each call.
    ticks = itertools.count()
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(ticks)))
    data = build_data(config)
    data.setup("fit")
    # Four calls: start of sample, start of reading, end of reading, end of sample.
    reading, augmentation = sample_seconds(data, seconds=30)
    assert reading == [1.0] * 11 and augmentation == [2.0] * 11
    # Two images per batch. Calls: at the start, and twice after every third batch.
    assert loading_rate(data, 0, seconds=1) == 3 * 2 / 2


@pytest.mark.parametrize("step", [True, False])
@pytest.mark.usefixtures("here")
def test_the_data_set_of_a_config_is_measured(config, monkeypatch, capsys, step):
    monkeypatch.setattr(module, "processors", lambda: 1)
    result = benchmark_data(config, seconds=0.01, step=step)
    assert json.loads(json.dumps(result)) == result
    assert list(result["loader"]) == ["0", "1"] and result["recommended_workers"] == 1
    assert 0 < result["reading_share"] < 1 and result["batch"] == 2
    if step:
        assert result["wanted"] == pytest.approx(2 / result["train_step"]["median"])
        assert "between the training steps" in result["verdict"]
    else:
        assert (result["train_step"], result["data_bound"]) == (None, None)
    printed = output_with_table(capsys, lines=6)
    assert result["verdict"] in printed and "recommended: data.workers=1" in printed
