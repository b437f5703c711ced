"""Machine facts: processors, and the memory allocator."""

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import psutil


def processor_name() -> str:
    """Return the model of the processor, which psutil does not know."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
        if model := re.search(r"model name\s*: (.*)", text):
            return model[1]
    return platform.processor() or platform.machine()


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of parameters in glibc's malloc.h
_LARGEST = 2**30


def processors() -> int:
    """Return the number of logical processors that this process may use."""
    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


def keep_memory() -> bool:
    """Let glibc keep freed memory until the process ends; return whether it did.

    By default glibc returns every block above 32 MiB to the system, which clears each page before
    it hands it out again: a third of the time of a network on a CPU for a 2-megapixel image.
    Only for commands, not for a library in other people's processes.
    """
    linux = sys.platform.startswith("linux")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if linux else None  # musl has none
    return bool(mallopt and mallopt(_MMAP_THRESHOLD, _LARGEST) and mallopt(_TRIM_THRESHOLD, -1))


# torchmetrics, and with it Lightning, imports them for metrics and plots that hrseg does not have.
UNUSED = ("scipy", "matplotlib")


def spare_imports() -> None:
    """Let torchmetrics, when it is imported, find no scipy and no matplotlib.

    For the process of a command: both are there for whoever imports them by name.
    """
    if "torchmetrics" not in sys.modules and not any(isinstance(f, _Watch) for f in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch:
    """Waits for the import of torchmetrics; finds nothing itself."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "torchmetrics":
            sys.meta_path.remove(self)
            _deny()
        return None


def _deny() -> None:
    # What torchmetrics asks whether a package is there.
    from lightning_utilities.core import imports

    package_available, satisfied = imports.package_available, imports.RequirementCache.__bool__

    def available(package_name: str) -> bool:
        return package_name not in UNUSED and package_available(package_name)

    def satisfied_and_used(self: imports.RequirementCache) -> bool:
        return self.requirement not in UNUSED and satisfied(self)

    imports.package_available = available  # type: ignore[assignment]
    imports.RequirementCache.__bool__ = satisfied_and_used  # type: ignore[method-assign]
