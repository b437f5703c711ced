"""Quoted messages of the documentation occur in the source of hrseg and scripts/gpu_proof."""

import ast
import re

import pytest

from tests.docs.pages import PAGES
from tests.paths import ROOT

TEXT = (PAGES / "troubleshooting.md").read_text(encoding="utf-8")
QUOTES = re.findall(r"^### `(.+)`$", TEXT, re.MULTILINE)
# The items of "What can go wrong": - **"message"**: cause and fix.
OTHERS = [
    (path.name, " ".join(quote.split()))
    for path in sorted(PAGES.rglob("*.md"))
    for quote in re.findall(r'^- \*\*"([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
]


def strings(node):
    """Return the text of a string, an f-string or a sum of both; placeholders are \\0."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(strings(value) for value in node.values)
    if isinstance(node, ast.BinOp):
        return strings(node.left) + strings(node.right)
    return "\0"


@pytest.fixture(scope="module")
def source():
    kinds = (ast.Constant, ast.JoinedStr, ast.BinOp)
    texts = set()
    for path in [*sorted((ROOT / "hrseg").rglob("*.py")), *(ROOT / "scripts/gpu").glob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        docstrings = [node.value for node in nodes if isinstance(node, ast.Expr)]
        messages = [node for node in nodes if isinstance(node, kinds) and node not in docstrings]
        texts |= {strings(node) for node in messages}
    return "\n\n".join(" ".join(text.split()) for text in sorted(texts))


def occurs(quote, source):
    """Return whether one message contains the parts of a quote, which are joined by `...`."""
    parts = [re.escape(part.strip()) for part in quote.split("...")]
    return re.search(r"[^\n]*?".join(parts), source) is not None


@pytest.mark.parametrize("quote", QUOTES)
def test_a_quoted_message_is_in_the_source(quote, source):
    assert occurs(quote, source), f"troubleshooting.md quotes a message that hrseg lacks: {quote}"


@pytest.mark.parametrize(("page", "quote"), OTHERS)
def test_a_message_quoted_by_another_page_is_in_the_source(page, quote, source):
    assert occurs(quote, source), f"{page} quotes a message that hrseg lacks: {quote}"


def test_a_message_that_is_not_in_the_source_is_found(source):
    assert not occurs("no such message ... anywhere", source)


def test_the_page_has_a_cause_and_a_fix_for_each_of_thirty_messages():
    entries = re.split(r"^#{2,3} .*$", TEXT, flags=re.MULTILINE)
    complete = [entry for entry in entries if "**Cause**:" in entry and "**Fix**:" in entry]
    assert len(complete) == len(QUOTES) >= 30
