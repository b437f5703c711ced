"""Signal handling: SIGTERM, SIGINT and SIGHUP stop a command with a message and an exit code."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGPIPE = 13  # the output is closed; Python ignores this signal
AGAIN = 1.0  # seconds in which copies of a signal, e.g. by terminal, torchrun and srun, count once


class Stopped(BaseException):
    """Raised when a signal stops the command. Not an Exception, so that no library catches it.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP, 141 for a closed output.
    """

    def __init__(self, signum: int, message: str | None = None) -> None:
        """Set message and exit code; the default message of SIGPIPE is empty."""
        super().__init__(message or ("" if signum == SIGPIPE else "stopped"))
        self.exit_code = 128 + signum


def stop_signals() -> tuple[int, ...]:
    """Return the signals that stop a command: also SIGHUP, unless `nohup` ignores it."""
    always = signal.SIGTERM, signal.SIGINT
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return always
    return *always, hangup


def raise_stopped(signum: int) -> None:
    """Stop as for a received signal: call the handler of SIGTERM, or else raise Stopped."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        raise Stopped(signum)
    handler(signum, None)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at the first signal; a later signal ends the process."""
    times: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not times:
            times.append(time.monotonic())
            raise Stopped(signum)
        if time.monotonic() - times[0] > AGAIN:
            os._exit(128 + signum)

    handlers = {signum: signal.signal(signum, stop) for signum in stop_signals()}
    try:
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
