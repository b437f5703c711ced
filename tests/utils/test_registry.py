"""Registries of parts."""

import pytest

from hrseg.errors import ConfigError
from hrseg.utils.registry import build


def make(size: int = 1) -> int:
    return size


def test_build_calls_the_entry_with_its_arguments():
    assert build({"one": make}, "one", "thing") == 1
    assert build({"one": make}, {"name": "one", "size": 3}, "thing") == 3


def test_build_refuses_unknown_names_and_arguments():
    message = r"thing 'one' has no argument 'sise'\. Did you mean: size"
    with pytest.raises(ConfigError, match=message):
        build({"one": make}, {"name": "one", "sise": 3}, "thing")
    with pytest.raises(ConfigError, match=r"unknown thing 'on'. Did you mean: one\?\nKnown: one"):
        build({"one": make}, "on", "thing")
    with pytest.raises(ConfigError, match="has no 'name'"):
        build({"one": make}, {"size": 3}, "thing")
