"""Progress bars, and commands with progress bars on a terminal."""

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
    """The output of a terminal of 100 columns."""
    output = io.StringIO()
    reconfigure(file=output, force_terminal=True, width=100, color_system=None)
    return output


def test_a_bar_counts(terminal):
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
    """Run Python on a terminal; return its exit code and the output."""
    leader, follower = os.openpty()
    output = b""
    command = [sys.executable, "-c", script]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(
        command, cwd=folder, stdin=follower, stdout=follower, stderr=follower, env=environment
    ) as process:
        os.close(follower)
        try:
            while part := os.read(leader, 4096):
                output += part
        except OSError:  # the last process with this terminal has ended
            pass
    os.close(leader)
    return process.returncode, output.decode(errors="replace")


def test_commands_with_bars_succeed_on_a_terminal(tmp_path):
    data = make_camvid(tmp_path / "camvid")
    root = f"data.root={data}"
    config = ["--config", "camvid_w18_small"]
    commands = [
        ["fit", *config, *fit_overrides(data), "trainer.max_epochs=1"],
        ["validate"],
        ["predict", str(data / "val"), "--out", "out"],
        ["data", "check", *config, root],
        ["data", "cache", *config, root, "data.cache=cache"],
        ["data", "cache", *config, root, "data.cache=cache", "--verify"],
    ]
    script = (
        "import json\nfrom hrseg.cli import main\n"
        f"for words in json.loads({json.dumps(commands)!r}):\n"
        "    print('code', main(words))\n"
    )
    code, output = on_terminal(script, tmp_path)
    assert code == 0, output[-2000:]
    assert output.count("code 0") == len(commands), output[-2000:]
    assert "Traceback" not in output and "\\x1b" not in output
    for bar in ("images", "reading files", "decoding", "reading ", "epoch: 1/1"):
        assert bar in output
