"""Fresh processes, memory, multiply-adds: the base of the benchmarks."""

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
    by_turns,
    device_of,
    in_process,
    multiply_adds,
    on_one_device,
    ratio,
    spread,
)
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.utils.memory import OutOfMemory
from tests.paths import ROOT

CPU = torch.device("cpu")


def allocate(mib):
    """Hold so much memory for a moment."""
    memory = PeakMemory(CPU)
    held = np.ones(mib * 2**20, np.uint8)
    del held
    return os.getpid(), torch.get_num_threads(), memory.read()


def sleep(note):
    """Write down which process this is, and do nothing for long."""
    Path(note).write_text(str(os.getpid()))
    time.sleep(600)


def test_work_runs_in_a_process_of_its_own_whose_peak_is_its_own():
    held = np.ones(600 * 2**20, np.uint8)  # which the other process must not count
    process, threads, memory = in_process(allocate, 100)
    assert process != os.getpid() and threads == torch.get_num_threads()
    assert memory["memory_mib"] == pytest.approx(100, abs=8)
    assert memory["peak_mib"] == pytest.approx(memory["before_mib"] + memory["memory_mib"])
    assert memory["peak_mib"] < held.nbytes / 2**20 + 100


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
def test_errors_of_the_user_come_back_and_faults_end_the_process(error, kind, message):
    with pytest.raises(kind, match=message):
        in_process(fail, error)


def test_a_process_that_the_system_kills_was_out_of_memory():
    with pytest.raises(OutOfMemory, match=r"raise signal: out of memory(.|\n)*data\.batch_size"):
        in_process(signal.raise_signal, signal.SIGKILL)


def test_the_process_ends_with_the_one_that_started_it(tmp_path):
    note = tmp_path / "process"
    code = (
        "from hrseg.benchmark.measure import in_process; "
        "from tests.benchmark.test_measure import sleep; "
    )
    run = [sys.executable, "-c", f"{code}in_process(sleep, {str(note)!r})"]
    with subprocess.Popen(run, cwd=ROOT) as parent:
        while not (note.is_file() and note.read_text()):
            assert parent.poll() is None
            time.sleep(0.05)
        parent.terminate()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(note.read_text())).wait(timeout=30)


def test_multiply_adds_of_a_convolution_are_those_worked_by_hand():
    # 8 maps of 5 x 7, each value of 3 channels x 3 x 3 products.
    assert multiply_adds(nn.Conv2d(3, 8, 3, padding=1), (5, 7)) == 8 * 5 * 7 * 3 * 3 * 3
    # Stride 2: 3 x 4 values; a 1x1 convolution behind it.
    two = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    assert multiply_adds(two, (5, 7)) == 3 * 4 * (8 * 27 + 2 * 8)


def test_the_figures_leave_the_warm_up_out():
    seconds = [9.0, 5.0, 2.0, 1.0, 6.0]
    assert spread(seconds) == {
        "median": 2.0, "lowest": 1.0, "highest": 6.0, "mean": 3.0, "steps": 3, "first": 9.0
    }  # fmt: skip


def test_ways_take_turns_and_their_ratio_has_a_spread():
    count = itertools.count(1)
    slow = lambda: time.sleep(0.04) or next(count)  # noqa: E731
    seconds, results = by_turns({"slow": slow, "fast": lambda: next(count)}, 3)
    assert results == {"slow": [1, 3, 5], "fast": [2, 4, 6]}
    assert all(took >= 0.04 for took in seconds["slow"])
    assert ratio([6, 2, 3], [2, 2, 2]) == {"ratio": 1.5, "spread": [1, 3]}


def test_a_recipe_for_several_gpus_is_measured_by_the_share_of_one():
    recipe = load_config("cityscapes_w48")
    changed = on_one_device(recipe)
    assert (recipe.data.batch_size, recipe.trainer["devices"]) == (12, 4)
    assert changed.data.batch_size == 3 and "devices" not in changed.trainer
    other = ["trainer.devices=2", "trainer.num_nodes=2", "trainer.accumulate_grad_batches=3"]
    assert on_one_device(load_config("cityscapes_w48", other)).data.batch_size == 1


def test_a_device_that_is_not_there_is_refused():
    assert device_of(load_config("camvid_w18_small", ["trainer.accelerator=cpu"])) == CPU
    with pytest.raises(ConfigError, match="trainer"):
        device_of(load_config("camvid_w18_small", ["trainer.accelerator=gpu"]))
