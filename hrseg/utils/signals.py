"""Signals: SIGTERM, Ctrl-C and the like end a command with a line and an exit code."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

SIGPIPE = 13  # nobody reads what is printed; Python does not let this signal come
AGAIN = 1.0  # seconds; a terminal, torchrun and srun may each pass on the same one


class Stopped(BaseException):
    """The command was told to stop; no Exception, so that nothing takes it for a fault.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP, 141 where nobody reads on.
    """

    def __init__(self, signum: int, message: str | None = None) -> None:
        """Take the signal, and what to say; by default nothing where nobody reads on."""
        super().__init__(message or ("" if signum == SIGPIPE else "stopped"))
        self.signum = signum
        self.exit_code = 128 + signum


def stop_signals() -> tuple[int, ...]:
    """Return the signals that stop a command: a terminal's end too, unless `nohup` is before it."""
    always = signal.SIGTERM, signal.SIGINT
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return always
    return *always, hangup


def tell(signum: int) -> None:
    """Stop as if a signal had come: whoever listens to SIGTERM is told."""
    listener = signal.getsignal(signal.SIGTERM)
    if not callable(listener):
        raise Stopped(signum)
    listener(signum, None)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped wherever the main thread is when a signal comes; at a second one just end."""
    if current_thread() is not main_thread():
        yield
        return
    stop = Handler()
    before = {signum: signal.signal(signum, stop) for signum in stop_signals()}
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
