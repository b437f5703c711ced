"""Measurements of the benchmarks: new processes, memory and multiply-adds."""

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from hrseg.benchmark.measure import (
    PeakMemory,
    device_of,
    in_process,
    multiply_adds,
    on_one_device,
    spread,
)
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.utils.memory import OutOfMemory
from tests.paths import ROOT

CPU = torch.device("cpu")


def allocate(mib):
    """Allocate and release `mib` MiB of memory."""
    memory = PeakMemory(CPU)
    array = np.ones(mib * 2**20, np.uint8)
    del array
    return os.getpid(), torch.get_num_threads(), memory.read()


def sleep(pid_file):
    """Write the process id to a file, and sleep."""
    Path(pid_file).write_text(str(os.getpid()))
    time.sleep(600)


def test_work_runs_in_a_new_process_with_an_independent_peak_of_memory():
    array = np.ones(600 * 2**20, np.uint8)  # the other process must not count this memory
    process, threads, memory = in_process(allocate, 100)
    assert process != os.getpid() and threads == torch.get_num_threads()
    assert memory["memory_mib"] == pytest.approx(100, abs=8)
    assert memory["peak_mib"] == pytest.approx(memory["before_mib"] + memory["memory_mib"])
    assert memory["peak_mib"] < array.nbytes / 2**20 + 100


def test_cuda_is_initialised_before_its_peak_is_reset(monkeypatch):
    """Torch refuses to reset the peak of cuda:0 before; a CPU cannot show this."""
    calls = []
    for name in ("init", "reset_peak_memory_stats", "memory_allocated", "max_memory_allocated"):
        record = lambda *device, name=name: calls.append(name) or 2**20  # noqa: E731
        monkeypatch.setattr(torch.cuda, name, record)
    assert PeakMemory(torch.device("cuda:0")).read()["peak_mib"] == 1
    assert calls[:2] == ["init", "reset_peak_memory_stats"]


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ConfigError("no such key"), ConfigError, "^no such key$"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory, "out of memory"),
        (RuntimeError("shapes"), RuntimeError, "fail: exit code 1"),
    ],
)
def test_user_errors_are_raised_again_and_other_errors_end_the_process(error, kind, message):
    with pytest.raises(kind, match=message):
        in_process(fail, error)


def test_a_process_killed_by_the_system_counts_as_out_of_memory():
    with pytest.raises(OutOfMemory, match=r"raise signal: out of memory(.|\n)*data\.batch_size"):
        in_process(signal.raise_signal, signal.SIGKILL)


def test_the_process_ends_with_its_parent(tmp_path):
    pid_file = tmp_path / "process"
    code = (
        "from hrseg.benchmark.measure import in_process; "
        "from tests.benchmark.test_measure import sleep; "
    )
    command = [sys.executable, "-c", f"{code}in_process(sleep, {str(pid_file)!r})"]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        while not (pid_file.is_file() and pid_file.read_text()):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.terminate()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid_file.read_text())).wait(timeout=30)


def test_multiply_adds_of_convolutions_equal_hand_computed_numbers():
    # 8 output channels of 5 x 7 values, each a sum of 3 channels x 3 x 3 products.
    assert multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (5, 7)) == 8 * 5 * 7 * 3 * 3 * 3
    # Stride 2 gives 3 x 4 values; a 1x1 convolution follows.
    two = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert multiply_adds(two, (5, 7)) == 3 * 4 * (8 * 27 + 2 * 8)


def test_the_statistics_exclude_the_warm_up():
    seconds = [9.0, 5.0, 2.0, 1.0, 6.0]
    assert spread(seconds) == {
        "median": 2.0, "lowest": 1.0, "highest": 6.0, "mean": 3.0, "steps": 3, "first": 9.0
    }  # fmt: skip


def test_functions_are_called_in_turn_and_their_ratio_has_a_spread(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts" / "benchmarks")
    from rounds import interleaved, ratio

    count = itertools.count(1)
    slow = lambda: time.sleep(0.04) or next(count)  # noqa: E731
    seconds, results = interleaved({"slow": slow, "fast": lambda: next(count)}, 3)
    assert results == {"slow": [1, 3, 5], "fast": [2, 4, 6]}
    assert all(duration >= 0.04 for duration in seconds["slow"])
    assert ratio([6, 2, 3], [2, 2, 2]) == {"ratio": 1.5, "spread": [1, 3]}


def test_a_config_for_several_gpus_is_measured_with_the_batch_size_of_one():
    config = load_config("cityscapes_w48")
    single = on_one_device(config)
    assert (config.data.batch_size, config.trainer["devices"]) == (12, 4)
    assert single.data.batch_size == 3 and "devices" not in single.trainer
    overrides = ["trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate_grad_batches=3"]
    assert on_one_device(load_config("cityscapes_w48", overrides)).data.batch_size == 1


def test_a_missing_device_is_refused():
    assert device_of(load_config("camvid_w18_small", ["trainer.accelerator=cpu"])) == CPU
    with pytest.raises(ConfigError, match="trainer"):
        device_of(load_config("camvid_w18_small", ["trainer.accelerator=gpu"]))
