"""Signals: SIGTERM, Ctrl-C and the like end a command with a line and an exit code."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGPIPE = 13  # the output is closed; Python ignores this signal
AGAIN = 1.0  # seconds in which a terminal, torchrun and srun may each pass on the same signal


class Stopped(BaseException):
    """A signal stopped the command; no Exception, so that no library takes it for a fault.

    Attributes:
        exit_code: 143 for SIGTERM, 130 for SIGINT, 129 for SIGHUP, 141 for a closed output.
    """

    def __init__(self, signum: int, message: str | None = None) -> None:
        """Keep the signal and its message; a closed output gets none by default."""
        super().__init__(message or ("" if signum == SIGPIPE else "stopped"))
        self.exit_code = 128 + signum


def stop_signals() -> tuple[int, ...]:
    """Return the signals that stop a command: SIGHUP too, unless `nohup` switched it off."""
    always = signal.SIGTERM, signal.SIGINT
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is None or signal.getsignal(hangup) == signal.SIG_IGN:
        return always
    return *always, hangup


def raise_stopped(signum: int) -> None:
    """Stop as if a signal had come: call the handler of SIGTERM, if there is one."""
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):
        raise Stopped(signum)
    handler(signum, None)


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise Stopped in the main thread at a signal; a later signal ends the process."""
    first: list[float] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        if not first:
            first.append(time.monotonic())
            raise Stopped(signum)
        if time.monotonic() - first[0] > AGAIN:
            os._exit(128 + signum)

    before = {signum: signal.signal(signum, stop) for signum in stop_signals()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
