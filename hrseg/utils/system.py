"""Processors, memory allocator, OpenMP and garbage collector of the process."""

import atexit
import ctypes
import gc
import os
import platform
import re
import sys
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path

import psutil


def processor_name() -> str:
    """Return the model of the processor, which psutil does not provide."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
        if model := re.search(r"model name\s*: (.*)", text):
            return model[1]
    return platform.processor() or platform.machine()


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameter numbers in glibc's malloc.h
_LARGEST = 2**30  # bytes
BUSY = 10.0  # percent of all processors


def processors() -> int:
    """Return the number of logical processors that this process may use."""
    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def exit_with_parent() -> None:
    """Exit when the parent process ends, for example if it is killed; run this in a thread."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def keep_memory() -> bool:
    """Let glibc keep freed memory until the process ends; return whether this succeeded.

    By default glibc returns every block above 32 MiB to the system, which clears each page before
    its next use. This costs a third of the time of a network on a CPU for a 2-megapixel image.
    Only for the process of a command, not for the process of a user's program.
    """
    linux = sys.platform.startswith("linux")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if linux else None  # musl has none
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, -1))


def share_processors() -> None:
    """Let waiting OpenMP threads sleep soon if other processes use the processors.

    Only for the process of a command. GNU OpenMP spins at barriers, and spinning threads occupy the
    cores of working threads. Beside one busy process on two cores, `hrseg predict` of 40 images
    takes 7.7 s without and 5.5 s with this setting. On an idle machine it costs time: a training
    step takes 0.24 s instead of 0.20 s, the prediction 4.2 s instead of 3.9 s.
    OpenMP reads the variable when torch is imported. A user's own setting has priority.
    """
    if {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        return
    if psutil.cpu_percent(interval=0.1) > BUSY:
        os.environ["GOMP_SPINCOUNT"] = "1000"


def relax_garbage_collection() -> None:
    """Run Python's garbage collector rarely, and not at exit. Only for the process of a command.

    The import of torch and Lightning creates objects that live until the end. The collector visits
    them repeatedly, also at exit. A process that imports Lightning, rasterio and albumentations
    takes 4.7 s with Python's defaults and 2.9 s with these settings (medians of five).
    """
    gc.set_threshold(10_000, 20, 100)
    atexit.register(gc.freeze)
