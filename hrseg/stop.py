"""SIGTERM and Ctrl-C end a command with one line and an exit code, never with a traceback."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
AGAIN = 1.0  # seconds; a terminal, torchrun and srun may each pass on the same one


class Stopped(BaseException):
    """The command was told to stop; no Exception, so that nothing takes it for a fault.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, signum: int, message: str = "stopped") -> None:
        """Take the signal, and what to say."""
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped wherever the main thread is when a signal comes; at a second one just end."""
    if current_thread() is not main_thread():
        yield
        return
    stop = Handler()
    before = {signum: signal.signal(signum, stop) for signum in SIGNALS}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


class Handler:
    """What happens at a signal: the first one raises Stopped, later ones end the process."""

    def __init__(self) -> None:
        """Wait for the first one."""
        self.first: float | None = None

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        """Answer a signal."""
        if self.first is None:
            self.first = time.monotonic()
            raise Stopped(signum)
        if time.monotonic() - self.first > AGAIN:
            os._exit(128 + signum)
