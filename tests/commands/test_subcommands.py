"""Every command of two words is parsed, carried out, and imports nothing heavy before that."""

import subprocess
import sys

import pytest
from hrseg.arguments import parse
from hrseg.subcommands import SUBCOMMANDS

from hrseg.cli import main

WORDS = {
    "data_check": "data check",
    "data_stats": "data stats",
    "data_cache": "data cache",
    "weights_inspect": "weights inspect file",
    "weights_convert": "weights convert file --to mmseg",
    "benchmark_model": "benchmark model",
    "benchmark_data": "benchmark data",
    "benchmark_evaluation": "benchmark evaluation",
}


def test_the_parser_and_the_table_name_the_same_commands():
    assert {parse(words.split()).command for words in WORDS.values()} == set(WORDS)
    assert set(SUBCOMMANDS) == {"data", *WORDS}


@pytest.mark.parametrize("group", ["data", "weights", "benchmark"])
def test_a_group_alone_prints_its_help(group, capsys):
    assert main([group]) == 0
    assert f"hrseg {group}" in capsys.readouterr().out


def test_nothing_heavy_is_imported_for_the_table():
    code = "import sys, hrseg.subcommands; assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
