"""Distributed training with several processes on one machine over gloo."""

import json
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import hrseg
from hrseg.cli import main
from hrseg.errors import ConfigError
from hrseg.models.hrnet import OUTPUTS
from hrseg.training.distributed import ddp_strategy, peer_failure, place
from tests.camvid_tree import make_camvid
from tests.paths import ROOT

CPU = {"accelerator": "cpu"}


def ddp_options(arguments):
    strategy = ddp_strategy(place(arguments), arguments)
    return strategy if isinstance(strategy, str) else strategy._ddp_kwargs


@pytest.mark.parametrize("requested", [{}, {"strategy": "auto"}, {"strategy": "ddp"}])
def test_several_devices_exchange_gradients_without_copies(requested):
    options = ddp_options({**CPU, "devices": 2, **requested})
    assert options == {"gradient_as_bucket_view": True}
    synchronised = ddp_options({**CPU, "devices": 2, "sync_batchnorm": True, **requested})
    assert False in [value for name, value in synchronised.items() if "buffers" in name]


def test_the_strategy_is_unchanged_for_one_device_and_for_other_strategies():
    assert ddp_options({**CPU, "devices": 1}) == "auto"
    assert ddp_options({**CPU, "devices": 1, "strategy": "ddp"}) == "ddp"
    for name in ("ddp_spawn", "ddp_find_unused_parameters_true"):
        assert ddp_options({**CPU, "devices": 2, "strategy": name}) == name


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(("head", "exchange"), [("fcn", "all"), ("ocr", "all"), ("fcn", "final")])
def test_every_parameter_gets_a_gradient(head, exchange, output):
    switches = {"exchange": exchange, "output": output}
    model = hrseg.create_model("hrnet_w18_small_v1", head=head, num_classes=3, **switches)
    model.outputs(torch.randn(2, 3, 64, 64))["out"].sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []


def test_several_machines_need_a_launcher():
    with pytest.raises(ConfigError, match=r"torchrun or srun"):
        place({**CPU, "devices": 1, "num_nodes": 2})


def test_another_number_of_processes_than_torchrun_started_is_refused(monkeypatch):
    started = {"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0, "GROUP_RANK": 0, "LOCAL_WORLD_SIZE": 2,
               "TORCHELASTIC_RUN_ID": "x", "MASTER_ADDR": "::1", "MASTER_PORT": 1}  # fmt: skip
    for name, value in started.items():
        monkeypatch.setenv(name, str(value))
    assert place({**CPU, "devices": 2}).processes == 2
    with pytest.raises(ConfigError, match="world size"):
        place({**CPU, "devices": 3})


def test_a_batch_size_that_processes_cannot_divide_is_refused_before_training(tmp_path, capsys):
    make_camvid(tmp_path / "camvid")
    pairs = tiny(tmp_path, "data.batch_size=3", "trainer.devices=2")
    assert main(["fit", "--config", "camvid_w18_small", *pairs]) == 2
    assert "cannot be divided by 2 devices" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/*"))


def tiny(folder, *more):
    return [f"data.root={folder}/camvid", f"runs={folder}/runs", "data.batch_size=4",
            "data.crop_size=[48,64]", "data.workers=0", "trainer.accelerator=cpu",
            "trainer.max_epochs=8", "trainer.check_val_every_n_epoch=4", "trainer.precision=null",
            "model.bn_momentum=0.5", "optimizer.lr=0.005", "schedule.warmup_steps=0",
            "loggers=[]", "prediction_images=1", *more]  # fmt: skip


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def environment(folder):
    (folder / "digests").mkdir(exist_ok=True)
    root = str(ROOT)
    return {**os.environ, "OMP_NUM_THREADS": "1", "DIGESTS": str(folder / "digests"),
            "PYTHONPATH": root, "MASTER_PORT": str(free_port())}  # fmt: skip


def command(launcher, folder, *more):
    script = str(ROOT / "tests" / "two_processes.py")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    start = [sys.executable, *(torchrun if launcher == "torchrun" else []), script]
    pairs = tiny(folder, "trainer.devices=2", *more)
    return [*start, "fit", "--config", "camvid_w18_small", *pairs]


def check_run_of_two(folder, capsys, printed):
    assert printed.count("fit camvid_w18_small") == 1
    assert printed.count("run folder: ") == 1
    assert "batch 4 = 2 devices x 2 images" in printed
    assert "precision 32-true (chosen: several processes on CPUs)" in printed
    [run] = folder.glob("runs/camvid_w18_small/2*")
    digests = [path.read_text() for path in sorted((folder / "digests").iterdir())]
    assert len(digests) == 2 and digests[0] == digests[1]
    assert digests[0].startswith(str(run))
    assert sorted(path.name for path in (run / "masks").iterdir()) == [
        "000.png", "001.png", "002.png",
    ]  # fmt: skip
    assert main(["validate", f"runs={folder}/runs"]) == 0
    [again] = run.glob("validate/*/scores.json")
    scores, single = (json.loads(path.read_text()) for path in (run / "scores.json", again))
    assert scores["confusion_matrix"] == single["confusion_matrix"]
    assert sum(map(sum, scores["confusion_matrix"])) == 3 * 48 * 63
    predicted = [any(column) for column in zip(*scores["confusion_matrix"], strict=True)]
    assert sum(predicted) > 1  # a constant prediction would not test the evaluation
    assert scores["images"] == 3


@pytest.mark.parametrize(
    "launcher", [pytest.param("lightning", marks=pytest.mark.slow), "torchrun"]
)
def test_two_processes_write_one_run_and_score_as_one_process(launcher, tmp_path, capsys):
    make_camvid(tmp_path / "camvid", train=8, val=3)
    done = subprocess.run(
        command(launcher, tmp_path), env=environment(tmp_path), capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_run_of_two(tmp_path, capsys, done.stdout)


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("exit 0", 1)])
def test_an_error_caused_by_another_process_has_its_exit_code(end, code):
    launcher = SimpleNamespace(procs=[subprocess.Popen(["sh", "-c", end])])
    run = SimpleNamespace(world_size=2, strategy=SimpleNamespace(launcher=launcher))
    closed = RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]")
    failure = peer_failure(run, closed)
    assert failure.exit_code == code and "Another process" in str(failure)
    assert peer_failure(run, RuntimeError("size mismatch")) is None
    run.world_size = 1
    assert peer_failure(run, closed) is None
