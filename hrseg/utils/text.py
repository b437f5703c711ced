"""Text for messages and tables: printable characters, shortened lists, percentages."""

import re
from collections.abc import Collection

# Control characters except tab and newline, direction overrides, and lone surrogates.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_LONGEST_LINE = 1000  # characters
# Source file, line and function in a message of ONNX Runtime.
_SOURCE = re.compile(r"\S+\.(?:cc|h):\d+ (?:.*[)\]](?: const)? (?=[A-Z\[])|\w+ (?=[A-Z]))")


def printable(text: str) -> str:
    r"""Return `text` with control characters escaped (`\x1b`), except newlines and tabs.

    File and class names are untrusted, and terminals execute control characters.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return a printable name on one line: newlines escaped, very long names shortened."""
    return _shorten(printable(text).replace("\n", "\\n"))


def printable_message(text: str) -> str:
    """Return an error message for the terminal: printable, with very long lines shortened."""
    return "\n".join(map(_shorten, printable(text).split("\n")))


def some(names: Collection[object], count: int = 3) -> str:
    """Return the first names of a list and the number of the others: "a, b, c and 4 more"."""
    rest = len(names) - count
    first = ", ".join(one_line(str(name)) for name in list(names)[:count])
    return f"{first} and {rest} more" if rest > 0 else first


def reason(error: Exception) -> str:
    """Return the reason in an error of ONNX Runtime or OpenVINO, without its source lines."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reasons = [line for line in lines if not line.startswith(("Exception", "Check "))] or lines
    return _SOURCE.sub("", reasons[0].partition(" ; GPU=")[0]).strip()[:200]


def percent(ratio: float | None) -> str:
    """Return a ratio as a percentage with two decimals, or "-" for None."""
    return "-" if ratio is None else f"{100 * ratio:.2f}"


def _shorten(line: str) -> str:
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{line[: _LONGEST_LINE // 2]} ... {line[-_LONGEST_LINE // 4 :]}"
