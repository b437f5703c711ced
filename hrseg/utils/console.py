"""Terminal output: messages, progress bars, and printable text only."""

import errno
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO, cast

from hrseg.utils.signals import SIGPIPE, tell
from hrseg.utils.text import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def say(*lines: str) -> None:
    """Print lines without wrapping; names in them stay as they are, [brackets] included."""
    from rich import get_console

    if lines:
        get_console().print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a note: a fact that the user may want to act on."""
    say(f"note: {text}")


def progress_bar() -> "Progress":
    """Return a bar with count, rate and time left; it shows on a terminal only, until its end."""
    from rich import get_console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.1f}/s")

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        console=get_console(),
        transient=True,
        disable=not get_console().is_terminal,
    )


@contextmanager
def plain_output() -> Iterator[None]:
    """Let only printable text through to stdout and stderr, and rich's own colours and bars.

    Warnings become notes of one line, without the line of code that found what they say. Where
    nobody reads on, as after `| head`, the command is told to stop.
    """
    streams, form = (sys.stdout, sys.stderr), warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"
    with open(os.devnull, "w") as nowhere:  # for a stream that was closed before Python began
        sys.stdout, sys.stderr = (cast(TextIO, _Printable(one or nowhere)) for one in streams)
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

        def _written(self) -> TextIO:
            # A bar puts a stream of its own before ours, and rich looks behind one alone.
            file = Console.file.fget(self)  # type: ignore[attr-defined]
            while (behind := getattr(file, "rich_proxied_file", None)) is not None:
                file = behind
            return cast(TextIO, file)

        file = property(_written, Console.file.fset)  # type: ignore[attr-defined]

        def _write_buffer(self) -> None:
            try:
                super()._write_buffer()
            except OSError as error:
                _fall_silent(cast(TextIO, self.file), error)

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
        except OSError as error:
            _fall_silent(self._stream, error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            _fall_silent(self._stream, error)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _fall_silent(stream: TextIO, error: OSError) -> None:
    """Write to nowhere from now on; where nobody reads on (`| head`), stop.

    A terminal that is gone stops a command by SIGHUP, unless `nohup` was to prevent that.
    """
    if error.errno not in (errno.EPIPE, errno.EIO):
        raise error
    with open(os.devnull, "w") as nowhere:
        for place in (1, 2):
            with suppress(OSError):
                if os.path.sameopenfile(place, stream.fileno()):
                    os.dup2(nowhere.fileno(), place)
    if error.errno == errno.EPIPE:
        tell(SIGPIPE)
