"""Terminal output: escaped control characters, notes, closed streams."""

import subprocess
import sys
import warnings

import pytest

from hrseg.cli import main
from hrseg.utils.console import echo, plain_output
from hrseg.utils.text import printable

EVIL = "a\x1b]52;c;aGk=\x07\x9b2J\u202egnp\udcff"
SHOWN = r"a\x1b]52;c;aGk=\x07\x9b2J\u202egnp\udcff"


def test_control_characters_in_a_message_are_escaped(capsys):
    with plain_output():
        echo(f"one {EVIL} [bold]two")
        echo(*("a" * 300, "b"))
        print("na\udcffme")
    assert capsys.readouterr().out == f"one {SHOWN} [bold]two\n{'a' * 300}\nb\nna\\udcffme\n"


def test_a_command_prints_a_warning_as_a_one_line_note(capsys):
    form, streams = warnings.formatwarning, (sys.stdout, sys.stderr)
    with warnings.catch_warnings(action="always"), plain_output():
        warnings.showwarning = show_warning
        warnings.warn(f"last.ckpt is damaged {EVIL}", stacklevel=1)
    assert capsys.readouterr().err == f"note: last.ckpt is damaged {SHOWN}\n"
    assert warnings.formatwarning is form and (sys.stdout, sys.stderr) == streams


def show_warning(message, category, filename, lineno, file=None, line=None):
    # pytest replaces warnings.showwarning.
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def test_a_key_with_control_characters_is_escaped_in_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text('"\\e[2J\\a\\n\\n\\n\\n\\nx": 1\n')
    assert main(["fit", "--config", "c.yaml"]) == 2
    error = capsys.readouterr().err
    assert r"\x1b[2J\x07\n\n" in error and printable(error) == error
    assert len(error.splitlines()) <= 4


@pytest.mark.parametrize("how", ["print", "rich.get_console().print", "sys.stdout.write"])
def test_a_closed_output_ends_the_command(how):
    """As in `hrseg ... | head`: without a traceback, also at the exit of Python."""
    script = (
        "import sys, rich\nfrom hrseg.utils.console import plain_output\n"
        "from hrseg.utils.signals import Stopped\n"
        "try:\n    with plain_output():\n        sys.stdin.read()\n"
        f"        for _ in range(9999):\n            {how}('a line')\n"
        "except Stopped as stop:\n    sys.exit(stop.exit_code)\n"
    )
    command = [sys.executable, "-c", script]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_command_succeeds_with_a_closed_stream(closed):
    command = f"{sys.executable} -m hrseg configs {closed}>&-"
    process = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert ("camvid_w18_small" in process.stdout) == (closed == "2")


def test_with_a_closed_stderr_an_error_is_not_printed_to_stdout():
    command = f"{sys.executable} -m hrseg weights inspect nowhere.pth 2>&-"
    process = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (2, "")
