"""Terminal output: messages, notes, progress bars, and closed output streams."""

import errno
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from hrseg.utils.signals import SIGPIPE, raise_stopped
from hrseg.utils.text import printable

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.table import Table

T = TypeVar("T")


def echo(*lines: str) -> None:
    """Print lines without wrapping and markup, and with control characters escaped."""
    from rich import get_console

    if lines:
        text = printable("\n".join(lines))
        get_console().print(text, highlight=False, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a note: a fact that the user may want to act on."""
    echo(f"note: {text}")


def progress_bar() -> "Progress":
    """Return a transient bar with count and remaining time; invisible outside a terminal."""
    from rich import get_console, progress

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=get_console(),
        transient=True,
        disable=not get_console().is_terminal,
    )


def number_table(first: str, *others: str, **options: Any) -> "Table":
    """Return an empty table; the columns after the first are right-aligned."""
    from rich import table

    return table.Table(first, *(table.Column(name, justify="right") for name in others), **options)


def track(items: Iterable[T], total: int | None, description: str) -> Iterator[T]:
    """Yield the items, and show a progress bar."""
    with progress_bar() as bar:
        yield from bar.track(items, total, description=description)


@contextmanager
def plain_output() -> Iterator[None]:
    """Print warnings as one-line notes, and stop the command when its output is closed."""
    streams, form = (sys.stdout, sys.stderr), warnings.formatwarning
    warnings.formatwarning = lambda message, *_: printable(f"note: {message}\n")
    with open(os.devnull, "w") as null:  # for a stream closed before Python began
        sys.stdout, sys.stderr = (cast(TextIO, _Output(stream or null)) for stream in streams)
        try:
            yield
            sys.stdout.flush()
        finally:
            sys.stdout, sys.stderr = streams
            warnings.formatwarning = form


class _Output:
    """Output stream that stops the command when its reader ends, as in `hrseg ... | head`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may have invalid characters

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def _try(self, work: Callable[[], Any]) -> None:
        try:
            work()
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            with open(os.devnull, "w") as null:  # later output goes there
                for number in (1, 2):
                    with suppress(OSError):
                        if os.path.sameopenfile(number, self._stream.fileno()):
                            os.dup2(null.fileno(), number)
            if error.errno == errno.EPIPE:  # the end of a terminal sends SIGHUP instead
                raise_stopped(SIGPIPE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
