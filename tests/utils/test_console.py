import io
import os
import subprocess
import sys
import warnings

import pytest
from rich import get_console, reconfigure
from rich.progress import Progress, TextColumn
from rich.table import Table

from hrseg.cli import main
from hrseg.utils.console import plain_output
from hrseg.utils.text import printable

EVIL = "a\x1b]52;c;aGk=\x07\x9b2J\u202egnp\udcff"
SHOWN = r"a\x1b]52;c;aGk=\x07\x9b2J\u202egnp\udcff"


def test_print_and_warnings_show_controls_instead_of_sending_them(capsys):
    with plain_output():
        print(f"one {EVIL}\ttwo")
        print(EVIL, file=sys.stderr)
    said = capsys.readouterr()
    assert said.out == f"one {SHOWN}\ttwo\n"
    assert said.err == f"{SHOWN}\n"


def test_a_warning_is_a_note_of_one_line_while_a_command_runs(capsys):
    form = warnings.formatwarning
    with warnings.catch_warnings(action="always"), plain_output():
        warnings.showwarning = shown
        warnings.warn(f"last.ckpt is damaged {EVIL}", stacklevel=1)
    assert capsys.readouterr().err == f"note: last.ckpt is damaged {SHOWN}\n"
    assert warnings.formatwarning is form


def shown(message, category, filename, lineno, file=None, line=None):
    # pytest catches warnings itself.
    sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def test_a_terminal_gets_the_colours_of_rich_and_no_controls_of_names():
    terminal = io.StringIO()
    reconfigure(file=terminal, force_terminal=True, width=300, color_system="standard")
    with plain_output():
        table = Table("class")
        table.add_row(EVIL, style="red")
        get_console().print(table)
        get_console().print(EVIL, markup=False, soft_wrap=True)
        with Progress(TextColumn("{task.description}", markup=False), console=get_console()) as bar:
            bar.add_task(EVIL)
    said = terminal.getvalue()
    assert said.count(r"a\x1b]52") >= 3  # \x07 rich leaves out itself
    assert "\x1b[31m" in said
    for control in ("\x1b]", "\x07", "\x9b", "\u202e", "\udcff"):
        assert control not in said


def test_a_bar_on_a_terminal_has_its_colours_and_no_controls_of_names():
    """On a terminal proper: there rich puts a stream of its own before stdout."""
    script = (
        "from hrseg.utils.console import plain_output\n"
        "with plain_output():\n"
        "    from rich.progress import Progress\n    from rich import get_console\n"
        "    with Progress(console=get_console()) as bar:\n"
        "        bar.update(bar.add_task('bar', total=2), advance=1)\n"
        f"        print({EVIL!r})\n"
    )
    leader, follower = os.openpty()
    plain = {**os.environ, "TERM": "xterm-256color"}
    subprocess.run([sys.executable, "-c", script], stdout=follower, env=plain, check=True)
    os.close(follower)
    said = os.read(leader, 2**16).decode()
    os.close(leader)
    assert "\x1b[38;5;" in said and "\x1b[2K" in said
    assert "egnp" in said and "\\x1b[" not in said
    for control in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert control not in said


def test_a_bar_may_write_its_line_again(capsys):
    with plain_output():
        sys.stderr.write("\r 10 %")
        sys.stderr.write("name\rof a file")
    assert capsys.readouterr().err == "\r 10 %name\\rof a file"


def test_the_streams_are_as_before_afterwards():
    streams, console = (sys.stdout, sys.stderr), type(get_console())
    with pytest.raises(KeyError), plain_output():
        raise KeyError
    assert (sys.stdout, sys.stderr) == streams and type(get_console()) is console


def test_a_command_shows_a_name_from_a_file_as_text(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text('"\\e[2J\\a\\n\\n\\n\\n\\nx": 1\n')
    assert main(["fit", "--config", "c.yaml"]) == 2
    said = capsys.readouterr().err
    assert r"\x1b[2J\x07\n\n" in said and printable(said) == said
    assert len(said.splitlines()) <= 4


def test_a_console_that_is_made_later_prints_printable_text_too():
    script = (
        "import sys\nfrom hrseg.utils.console import plain_output\n"
        "with plain_output():\n    assert 'rich' not in sys.modules\n"
        "    from rich import get_console\n    get_console().print('a\\x9b2J', soft_wrap=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert done.stdout == b"a\\x9b2J\n", done.stderr


@pytest.mark.parametrize("how", ["print", "rich.get_console().print", "sys.stdout.write"])
def test_output_that_nobody_reads_ends_the_command(how):
    """As `hrseg ... | head` does: no traceback, neither then nor when Python ends."""
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
def test_a_stream_that_was_closed_before_is_no_fault(closed):
    command = f"{sys.executable} -m hrseg configs {closed}>&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert ("camvid_w18_small" in done.stdout) == (closed == "2")


def test_an_error_is_not_printed_as_a_result_where_stderr_is_closed():
    command = f"{sys.executable} -m hrseg weights inspect nowhere.pth 2>&-"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
