import csv
from types import SimpleNamespace

import pytest

from hrseg.errors import ConfigError
from hrseg.training.loggers import build_loggers, metrics_csv


def rows(run):
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def test_metrics_of_a_resumed_run_are_appended(tmp_path):
    for step in (1, 2):
        logger = metrics_csv(tmp_path)
        logger.log_metrics({"loss": step / 10}, step)
        logger.save()
    assert [(row["step"], row["loss"]) for row in rows(tmp_path)] == [("1", "0.1"), ("2", "0.2")]


def test_a_later_metric_gets_a_new_column(tmp_path):
    for metrics in ({"loss": 1.0}, {"miou": 0.5}):
        logger = metrics_csv(tmp_path)
        logger.log_metrics(metrics, 1)
        logger.save()
    assert rows(tmp_path)[1]["miou"] == "0.5"


def test_unknown_and_missing_loggers_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="Did you mean: tensorboard"):
        build_loggers(SimpleNamespace(name="x", loggers=["tensorbord"]), tmp_path)
    monkeypatch.setattr("hrseg.training.loggers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        build_loggers(SimpleNamespace(name="x", loggers=["wandb"]), tmp_path)
    assert len(build_loggers(SimpleNamespace(name="x", loggers=["tensorboard"]), tmp_path)) == 1
