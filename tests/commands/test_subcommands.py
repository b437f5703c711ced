"""Every command of two words is parsed, carried out, and imports nothing heavy before that."""

import subprocess
import sys

import pytest

from hrseg.cli import main, parse

SUBCOMMANDS = [
    "data check",
    "data stats",
    "data cache",
    "weights inspect file",
    "weights convert file --to mmseg",
    "benchmark model",
    "benchmark data",
    "benchmark evaluation",
]


def test_each_subcommand_has_an_action_of_its_own():
    actions = {parse(words.split()).action for words in SUBCOMMANDS}
    assert len(actions) == len(SUBCOMMANDS)


@pytest.mark.parametrize("group", ["data", "weights", "benchmark"])
def test_a_group_without_a_subcommand_prints_its_help(group, capsys):
    assert main([group]) == 0
    assert f"hrseg {group}" in capsys.readouterr().out


def test_nothing_heavy_is_imported_to_parse_any_command():
    code = (
        "import sys; from hrseg.cli import make_parser; make_parser()\n"
        "assert not {'torch', 'numpy', 'cv2', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
