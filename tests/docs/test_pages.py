"""Examples of the documentation and README: command lines, Python, links to the repository."""

import pytest

from hrseg.cli import parse
from hrseg.config.loader import load_config, shipped_configs
from tests.docs.pages import FILES, PAGES, blocks, command_lines
from tests.paths import ROOT


def relative(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_command_line_parses(path):
    for _, code in blocks(path, "bash"):
        for words in command_lines(code):
            try:
                arguments = parse(words)
            except SystemExit as stop:  # --help, --version
                assert not stop.code
                continue
            check_config(arguments)


def check_config(arguments):
    """Load a shipped config with the overrides of a command line; placeholders stay unchecked."""
    name = (getattr(arguments, "config", None) or "").removesuffix(".yaml")
    if name in shipped_configs() and not getattr(arguments, "plugin", None):
        load_config(name, [pair for pair in getattr(arguments, "overrides", ()) if "=" in pair])


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_every_python_block_compiles_and_the_marked_ones_run(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for before, code in blocks(path, "python"):
        program = compile(code, relative(path), "exec")
        if before.strip() == "<!-- run -->":
            exec(program, {"__name__": "__main__"})


def test_command_lines_are_found_in_all_the_forms_that_shells_have():
    code = """\
    # hrseg nothing
    $ hrseg fit --config a \\
        x=1   # a comment
    cd x && HRSEG_X=1 hrseg validate "k=[1, 2]" | head > log.txt
    torchrun --nproc_per_node=4 -m hrseg fit ... ; hrseg doctor
    pip install hrseg
    """
    assert command_lines("\n".join(line.strip() for line in code.splitlines())) == [
        ["fit", "--config", "a", "x=1"],
        ["validate", "k=[1, 2]"],
        ["fit"],
        ["doctor"],
    ]


def test_there_are_enough_pages_and_examples():
    commands = [
        c for path in FILES for _, code in blocks(path, "bash") for c in command_lines(code)
    ]
    assert len(commands) >= 20
    assert (PAGES / "index.md").is_file()
