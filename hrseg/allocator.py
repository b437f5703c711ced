"""Memory that a command keeps while it runs, instead of asking the system for it at each step."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of parameters in glibc's malloc.h
_LARGEST = 2**30


def keep_memory() -> bool:
    """Let glibc hold on to freed memory; return whether it did.

    By default it gives every block above 32 MiB back to the system, which hands it out again page
    by page, each one cleared: on a CPU a third of the time that a network takes for a 2-megapixel
    image. What a process has once taken it keeps until it ends. Not for a library that is used in
    other people's processes: commands alone do this.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, -1))
