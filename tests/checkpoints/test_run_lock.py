import os
import subprocess
import sys

import pytest

from hrseg.checkpoints.runs import locked_run
from hrseg.errors import ConfigError

HOLD_LOCK = """
import sys, time
from pathlib import Path
from hrseg.checkpoints.runs import locked_run
with locked_run(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_training(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"locked\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_in_a_run_folder_is_refused(tmp_path, other_training):
    reason = f"another process trains in this run folder .process {other_training.pid} on "
    with pytest.raises(ConfigError, match=reason), locked_run(tmp_path):
        pass


def test_a_killed_training_leaves_no_lock(tmp_path, other_training):
    other_training.kill()
    other_training.wait()
    with locked_run(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert not (tmp_path / ".lock").exists()


def test_other_processes_of_the_same_training_share_its_lock(tmp_path, other_training, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    with locked_run(tmp_path):
        owner = (tmp_path / ".lock").read_text()
    assert owner.startswith(f"process {other_training.pid} on ")
