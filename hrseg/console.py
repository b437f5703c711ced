"""What a command prints: nothing that a stranger named can be a command to the terminal."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from rich import get_console
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from hrseg.errors import printable


@contextmanager
def plain_output() -> Iterator[None]:
    """Let only printable text through to stdout and stderr, and rich's own colours and bars.

    Warnings become notes of one line, without the line of code that found what they say.
    """
    streams, console = (sys.stdout, sys.stderr), cast(Any, get_console())
    kind, form = console.__class__, warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    sys.stdout, sys.stderr = (cast(TextIO, _Printable(stream)) for stream in streams)
    console.__class__ = PrintableConsole  # whoever holds it already, holds this one
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        warnings.formatwarning = form
        console.__class__ = kind


class PrintableConsole(Console):
    """Rich's console, which writes the text that it is given as `printable` returns it."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Return what is written for `renderable`."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            # With `control` it is rich itself that moves the cursor.
            yield segment if control else Segment(printable(text), style)


class _Printable:
    """A stream whose text is made printable; `rich_proxied_file` is where rich writes instead."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        again = "\r" * text.startswith("\r")  # as bars write their line once more
        self.rich_proxied_file.write(again + printable(text[len(again) :]))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
