"""Bars, and the commands that have one, on a terminal: pytest's output is none."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich import reconfigure

from hrseg.utils.console import progress_bar, track
from tests.camvid_tree import fit_overrides, make_camvid


@pytest.fixture
def terminal():
    """What a terminal of 100 columns has got."""
    told = io.StringIO()
    reconfigure(file=told, force_terminal=True, width=100, color_system=None)
    return told


def test_it_counts(terminal):
    with progress_bar() as bar:
        task = bar.add_task("[bold]images", total=3)
        bar.refresh()
        assert "[bold]images" in terminal.getvalue() and "0/3" in terminal.getvalue()
        for _ in range(3):
            bar.advance(task)
        bar.refresh()
    assert "3/3" in terminal.getvalue()


def test_an_output_without_a_terminal_gets_no_control_codes(capsys):
    assert list(track(range(3), 3, "images")) == [0, 1, 2]
    assert capsys.readouterr().out == ""


def on_terminal(script, folder):
    """Run Python with a terminal; return its exit code, and what the terminal has got."""
    leader, follower = os.openpty()
    told = b""
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        try:
            while part := os.read(leader, 4096):
                told += part
        except OSError:  # the last process with this terminal has ended
            pass
    os.close(leader)
    return process.returncode, told.decode(errors="replace")


def test_commands_with_bars_end_well_on_a_terminal(tmp_path):
    data = make_camvid(tmp_path / "camvid")
    place = f"data.root={data}"
    config = ["--config", "camvid_w18_small"]
    commands = [
        ["fit", *config, *fit_overrides(data), "trainer.max_epochs=1"],
        ["validate"],
        ["predict", str(data / "val"), "--out", "out"],
        ["data", "check", *config, place],
        ["data", "cache", *config, place, "data.cache=cache"],
        ["data", "cache", *config, place, "data.cache=cache", "--verify"],
    ]
    script = (
        "import json\nfrom hrseg.cli import main\n"
        f"for words in json.loads({json.dumps(commands)!r}):\n"
        "    print('code', main(words))\n"
    )
    code, told = on_terminal(script, tmp_path)
    assert code == 0, told[-2000:]
    assert told.count("code 0") == len(commands), told[-2000:]
    assert "Traceback" not in told and "\\x1b" not in told
    for bar in ("images", "looking at files", "decoding", "reading", "epoch: 1/1"):
        assert bar in told
