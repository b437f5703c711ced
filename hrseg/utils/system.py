"""Machine facts: devices, processors, memory, disks, and the memory allocator."""

import ctypes
import os
import platform
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import psutil

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """Something to repair.

    Attributes:
        text: what is wrong, why it matters, and the repair, in one line.
        bad: wrong in any case, not only for some uses.
    """

    text: str
    bad: bool = True


Part = tuple[list[tuple[str, str]], list[Finding]]  # facts (name, value), and findings


def machine() -> Part:
    """Return facts (name, value) and findings about devices, memory and disks."""
    facts, findings = _torch()
    memory = psutil.virtual_memory()
    free = f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} free"
    facts.append(("memory", free))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        facts.append((f"size of {shared}", f"{size / GIB:.1f} GiB"))
        if size < GIB:
            text = (
                f"{shared} is small, data workers pass their batches through it: "
                "docker run --shm-size=2g, or data.workers=0"
            )
            findings.append(Finding(text, bad=False))
    for folder in (Path("runs") if Path("runs").is_dir() else Path(), Path(tempfile.gettempdir())):
        path, space = folder.absolute(), shutil.disk_usage(folder).free
        facts.append((f"free in {path}", f"{space / GIB:.1f} GiB"))
        if space < GIB:
            findings.append(Finding(f"{path} is almost full: checkpoints will not fit", bad=False))
    return facts, findings


def _torch() -> Part:
    try:
        import torch
    except Exception as error:
        return [], [Finding(f"torch cannot be imported ({error}): install it again")]
    cuda = torch.version.cuda
    facts = [("torch build", f"CUDA {cuda}" if cuda else "CPU")]
    findings = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = f"{device.total_memory / GIB:.1f} GiB"
        facts.append((f"device cuda:{index}", f"{device.name}, {size}"))
    if torch.backends.mps.is_available():
        facts.append(("device mps", "Apple GPU"))
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        reason = "driver too old?" if cuda else "a CPU build"
        text = f"an NVIDIA driver is installed, but this torch does not use it ({reason})"
        findings.append(Finding(f"{text}: see pytorch.org/get-started", bad=False))
    threads = f"{os.cpu_count()} logical, torch uses {torch.get_num_threads()}"
    units = torch.backends.cpu.get_cpu_capability()
    facts.append(("processors", f"{threads}; {processor_name()}, {units}"))
    return facts, findings


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
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, -1))


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
