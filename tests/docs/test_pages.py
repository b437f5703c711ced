"""The documentation: it builds, its commands parse, its Python runs, its messages exist."""

import ast
import importlib.util
import re
import shlex
import subprocess
import sys

import pytest

from hrseg.cli import parse
from hrseg.config.loader import load_config, shipped_configs
from tests.paths import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/pages").rglob("*.md"))]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}


def blocks(text, language):
    """Return (start, code) of the code blocks of a language."""
    found = re.finditer(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(match.start(), match[1]) for match in found]


def commands(text):
    """Return the words of each `hrseg` command line, without `hrseg`."""
    lines = [line for _, code in blocks(text, "bash") for line in code.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line[:1] == ["hrseg"]]


PYTHON = [(page, *block) for page, text in TEXTS.items() for block in blocks(text, "python")]


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if commands(text)])
def test_every_command_line_parses(page):
    for words in commands(TEXTS[page]):
        arguments = parse(words)
        config = str(getattr(arguments, "config", None) or "").removesuffix(".yaml")
        if config in shipped_configs() and not arguments.plugin:
            load_config(config, [pair for pair in arguments.overrides if "=" in pair])


@pytest.mark.parametrize(("page", "start", "code"), PYTHON, ids=lambda value: str(value)[:24])
def test_python_of_a_page_compiles_and_runs_if_it_is_marked(page, start, code):
    if "--8<--" in code:
        return
    compiled = compile(code, page, "exec")
    if TEXTS[page][:start].rstrip().endswith("<!-- run -->"):
        exec(compiled, {})


def source_texts():
    """Return the constant parts of all strings in the package, joined."""
    parts = []
    for path in (ROOT / "hrseg").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts.append(node.value)
    return "\n".join(parts)


def test_the_messages_under_troubleshooting_are_those_of_the_code():
    text = TEXTS["docs/pages/troubleshooting.md"]
    quoted = re.findall(r"^(`.*`)\n:   ", text, re.MULTILINE)
    assert len(quoted) >= 30
    source = source_texts()
    for line in quoted:
        for fragment in re.split(r"`? / `|…|\.\.\.", line.strip("`")):
            words = fragment.strip(" .:,;")
            assert words in source, f"{line}: {words!r} is not in the code"


def test_the_site_builds_without_warnings(tmp_path):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed (the extra `docs`)")
    command = ["build", "--strict", "-f", str(ROOT / "docs/mkdocs.yml"), "-d", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", *command], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for page in ("reference/config", "reference/command-line", "reference/protocols"):
        assert (tmp_path / page / "index.html").is_file()
    config = (tmp_path / "reference/config/index.html").read_text(encoding="utf-8")
    assert "data.class_uniform" in config and "inference.window_border" in config
    loaded = re.findall(r'(?:src|<link[^>]* href)="(https?://[^"]+)"', config)
    assert not [url for url in loaded if "hrseg" not in url]


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "docs/mkdocs.yml").read_text(encoding="utf-8")
    for path in (ROOT / "docs/pages").rglob("*.md"):
        assert f": {path.relative_to(ROOT / 'docs/pages')}" in navigation, path
