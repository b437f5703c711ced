"""What a command prints: nothing that a stranger named can be a command to the terminal."""

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

from hrseg.errors import printable
from hrseg.stop import Stopped

if TYPE_CHECKING:
    from rich.console import Console

_SIGPIPE = 13


@contextmanager
def plain_output() -> Iterator[None]:
    """Let only printable text through to stdout and stderr, and rich's own colours and bars.

    Warnings become notes of one line, without the line of code that found what they say. Where
    nobody reads on, as after `| head`, the command stops without a word.

    Raises:
        Stopped: nobody reads on.
    """
    streams, form = (sys.stdout, sys.stderr), warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    sys.stdout, sys.stderr = (cast(TextIO, _Printable(stream)) for stream in streams)
    _set_console(printable=True)
    try:
        yield
        sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = streams
        warnings.formatwarning = form
        _set_console(printable=False)


def _set_console(printable: bool) -> None:
    """Let rich's console print printable text, or as before; not before somebody imports rich."""
    console = cast(Any, getattr(sys.modules.get("rich"), "_console", None))
    if console is not None:
        # Whoever holds it already, holds this one.
        console.__class__ = _console_class() if printable else _console_class().__base__


@cache
def _console_class() -> "type[Console]":
    """Return rich's console, which writes the text that it is given as `printable` returns it."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PrintableConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                text, style, control = segment
                # With `control` it is rich itself that moves the cursor.
                yield segment if control else Segment(printable(text), style)

        def on_broken_pipe(self) -> None:
            _stop_unheard(cast(TextIO, self.file))

    return PrintableConsole


class _Printable:
    """A stream whose text is made printable."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @property
    def rich_proxied_file(self) -> TextIO:
        """Where rich writes instead, which asks for it before it prints for the first time."""
        _set_console(printable=True)
        return self._stream

    def write(self, text: str) -> int:
        again = "\r" * text.startswith("\r")  # as bars write their line once more
        try:
            self._stream.write(again + printable(text[len(again) :]))
        except BrokenPipeError:
            _stop_unheard(self._stream)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            _stop_unheard(self._stream)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _stop_unheard(stream: TextIO) -> NoReturn:
    """Stop where nobody reads on; what is still in the stream goes nowhere."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
    raise Stopped(_SIGPIPE, "")
