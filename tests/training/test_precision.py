import pytest
import torch
from omegaconf import OmegaConf

from hrseg.cli import main
from hrseg.training import trainer as devices
from hrseg.training.trainer import choose_precision
from tests.camvid_tree import fit_overrides, make_camvid


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ([(8, 0), (9, 0)], "bf16-mixed"),
        ([(8, 0), (7, 0)], "16-mixed"),  # all processes of a machine must agree
    ],
)
def test_gpus_with_bf16_use_it_and_older_gpus_use_float16(monkeypatch, capabilities, precision):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: capabilities[index])
    assert choose_precision("cuda", 4).precision == precision


@pytest.mark.parametrize(("speedup", "precision"), [(1.2, "32"), (1.4, "bf16-mixed")])
def test_a_cpu_uses_bf16_only_if_it_is_clearly_faster(monkeypatch, speedup, precision):
    monkeypatch.setattr(devices, "bf16_speedup", lambda: speedup)
    choice = choose_precision("cpu")
    assert choice.precision == precision
    assert f"{speedup}x" in choice.reason


def test_mps_and_several_processes_use_float32(monkeypatch):
    monkeypatch.setattr(devices, "bf16_speedup", lambda: 9.0)
    assert choose_precision("mps").precision == "32"
    assert choose_precision("cpu", 2).precision == "32"


def test_the_choice_is_printed_and_stored_for_resume(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(devices, "bf16_speedup", lambda: 2.1)
    make_camvid(tmp_path / "camvid")
    overrides = [*fit_overrides(tmp_path / "camvid"), f"runs={tmp_path}/runs"]
    overrides += ["trainer.precision=null", "trainer.accelerator=cpu", "trainer.max_epochs=1"]
    assert main(["fit", "--config", "camvid_w18_small", *overrides]) == 0
    line = "precision bf16-mixed (chosen: convolves 2.1x as fast in bf16 as in float32)"
    assert line in capsys.readouterr().out
    [stored] = tmp_path.glob("runs/*/2*/config.yaml")
    assert OmegaConf.load(stored).trainer.precision == "bf16-mixed"
    monkeypatch.setattr(devices, "bf16_speedup", lambda: 0.5)
    again = ["--resume", f"runs={tmp_path}/runs", "trainer.max_epochs=2"]
    assert main(["fit", *again]) == 0
    out = capsys.readouterr().out
    assert "precision bf16-mixed\n" in out
