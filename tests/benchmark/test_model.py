"""`hrseg benchmark model`, and argument errors of all three benchmarks."""

import json

import pytest

import hrseg
from hrseg.benchmark import measure
from hrseg.benchmark.model import benchmark_model, train_step
from hrseg.cli import main
from hrseg.config.loader import load_config
from hrseg.utils.memory import OutOfMemory
from tests.benchmark.conftest import output_with_table

CONFIG = ["--config", "camvid_w18_small"]


def config(*overrides):
    return load_config("camvid_w18_small", ["data.root=/nowhere", *overrides])


def test_a_model_is_measured_without_its_data_set(here, tmp_path, capsys):
    out = tmp_path / "model.json"
    size = ["--size", "32", "64", "--batch", "2", "--steps", "1", "--json", str(out)]
    assert main(["benchmark", "model", *CONFIG, "data.root=/nowhere", *size]) == 0
    result = json.loads(out.read_text())
    assert result["size"] == [32, 64] and result["classes"] == 11
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=11)
    assert result["parameters"] == sum(p.numel() for p in model.parameters())
    assert result["flops"] == 2 * result["macs"]
    for work in ("train_step", "inference"):
        assert list(result["measurements"][work]) == ["32", "bf16"]
        for row in result["measurements"][work].values():
            assert row["batch"] == 2 and row["seconds"]["steps"] == 1
            assert row["images_per_second"] == pytest.approx(2 / row["seconds"]["median"])
    assert "GFLOPs" in output_with_table(capsys, lines=8)


def test_out_of_memory_affects_only_one_row(here, monkeypatch, capsys):
    def in_process(work, *arguments):
        if work is train_step:
            raise OutOfMemory("out of memory")
        return work(*arguments)

    monkeypatch.setattr(measure, "in_process", in_process)
    rows = benchmark_model(config(), size=(32, 32), steps=1)["measurements"]
    assert rows["train_step"]["32"] == {"batch": 4, "error": "out of memory"}
    assert rows["inference"]["bf16"]["images_per_second"] > 0
    assert capsys.readouterr().out.count("out of memory") == 2


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["model", *CONFIG, "--size", "16", "64"], 2, "--size 16 64 is too small"),
        (["model", *CONFIG, "--json", "."], 2, "is a folder"),
        (["model", *CONFIG, "trainer.precision=16-tru"], 2, "16-tru"),
        (["evaluation", *CONFIG, "data.root=/nowhere"], 3, "/nowhere"),
        (["evaluation", *CONFIG, "data.root=.", "--checkpoint", "no.ckpt"], 2, "no.ckpt"),
    ],
)
def test_wrong_arguments_are_refused_before_any_measurement(words, code, message, capsys):
    assert main(["benchmark", *words]) == code
    printed = capsys.readouterr().err
    assert message in printed and len(printed.strip().splitlines()) <= 4
