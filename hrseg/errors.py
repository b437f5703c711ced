"""The errors a user meets: what is wrong, where, what was expected, how to repair it."""

import re

# Controls but tabs and ends of lines, what turns the direction of text, and halves of characters.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONG = 1000  # letters of a line


class HrsegError(Exception):
    """Base of every error that is the user's to repair; the command line prints it and exits.

    Attributes:
        exit_code: what the process ends with.
    """

    exit_code = 1

    def __init__(self, message: str) -> None:
        """Keep the message alone where a DataLoader worker has wrapped it in its traceback."""
        said = message.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__("\n".join(map(_cut, printable(said).split("\n"))))


class ConfigError(HrsegError):
    """A wrong command line, config, or argument."""

    exit_code = 2


class DataError(HrsegError):
    """A wrong image, mask, list or folder."""

    exit_code = 3


class ProofError(HrsegError):
    """A proof or a number failed: NaN loss, exports that do not agree."""

    exit_code = 4


def printable(text: str) -> str:
    r"""Return a text without what a terminal obeys: names come from strangers, too.

    Controls, and what turns the direction of text, are written as Python writes them (`\x1b`);
    lines stay lines, and tabs tabs.
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a name as `printable` does, its line ends written out as well, if long cut."""
    return _cut(printable(text).replace("\n", "\\n"))


def _cut(line: str) -> str:
    return line if len(line) <= _LONG else f"{line[: _LONG // 2]} ... {line[-_LONG // 4 :]}"
