"""Pages of the documentation, and the code blocks in them."""

import re
import shlex
import textwrap

from tests.paths import ROOT

PAGES = ROOT / "docs" / "pages"
FILES = [ROOT / "README.md", *sorted(PAGES.rglob("*.md"))]
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.M | re.S
)
_SEPARATORS = ("|", "||", "&&", ";", "&")
_REDIRECTIONS = (">", ">>", "2>", "<")


def blocks(path, language):
    """Return (preceding line, code) of each code block of a language."""
    text = path.read_text(encoding="utf-8")
    return [
        (text[: match.start()].rstrip().rpartition("\n")[2], textwrap.dedent(match["code"]))
        for match in _BLOCK.finditer(text)
        if match["language"] == language
    ]


def command_lines(code):
    """Return the words after `hrseg` of each of its command lines in the code of a shell."""
    lines = code.replace("\\\n", " ").splitlines()
    words_of = [_words(line.removeprefix("$ ")) for line in lines]
    return [command for words in words_of for command in _commands(words)]


def _words(line):
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _commands(words):
    """Yield the arguments of `hrseg` in a line: after variables, `-m`, srun and the like."""
    command = []
    for word in [*words, ";"]:
        if word not in _SEPARATORS:
            command.append(word)
            continue
        end = next((i for i, part in enumerate(command) if part in _REDIRECTIONS), len(command))
        command = command[:end]
        if "hrseg" in command and not {"pip", "cd", "git", "python"} & set(command[:1]):
            yield [part for part in command[command.index("hrseg") + 1 :] if part != "..."]
        command = []
