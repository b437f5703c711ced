"""The examples in docstrings run."""

import doctest
from importlib import import_module

import pytest

from tests.paths import ROOT

FILES = sorted((ROOT / "hrseg").rglob("*.py"))
NAMES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in FILES
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_there_are_examples():
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_a_module_run(name):
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed
