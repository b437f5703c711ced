"""Machine facts: processors, memory, shared memory, disks, and the memory allocator."""

import atexit
import ctypes
import gc
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

GIB = 2**30
OPEN_FILES = 1024  # what Linux gives a process; the batches of several workers stay below it


@dataclass(frozen=True)
class Finding:
    """Something to repair.

    Attributes:
        text: what is wrong, why it matters, and the repair, in one line.
        bad: wrong in any case, not only for some uses.
    """

    text: str
    bad: bool = True


Part = tuple[list[tuple[str, str]], list[Finding]]  # facts (name, value), and what is wrong


def machine() -> Part:
    """Return facts (name, value) and findings about devices, memory, workers and disks."""
    facts, findings = [], []
    for part in (_torch, _memory, _workers, _space):
        more_facts, more_findings = part()
        facts += more_facts
        findings += more_findings
    return facts, findings


def _torch() -> Part:
    try:
        import torch
    except Exception as error:
        return [], [Finding(f"torch cannot be imported ({error}): install it again")]
    cuda, mps = torch.version.cuda, torch.backends.mps.is_available()
    facts = [("torch build", f"CUDA {cuda}" if cuda else "CPU")]
    findings = []
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = f"{device.total_memory / GIB:.1f} GiB"
        facts.append((f"device cuda:{index}", f"{device.name}, {size}"))
    if mps:
        facts.append(("device mps", "Apple GPU"))
    if shutil.which("nvidia-smi") and not torch.cuda.is_available():
        findings.append(
            Finding(
                "an NVIDIA driver is installed, but this torch does not use it "
                f"({'driver too old?' if cuda else 'a CPU build'}): see pytorch.org/get-started",
                bad=False,
            )
        )
    threads = f"{os.cpu_count()} logical, torch uses {torch.get_num_threads()}"
    units = torch.backends.cpu.get_cpu_capability()
    facts.append(("processors", f"{threads}; {processor_name()}, {units}"))
    return facts, findings


def processor_name() -> str:
    """Return the model of the processor; psutil does not know it."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
        if model := re.search(r"model name\s*: (.*)", text):
            return model[1]
    return platform.processor() or platform.machine()


def _memory() -> Part:
    """The machine's memory, and the limit of a container."""
    memory = psutil.virtual_memory()
    text = f"{memory.total / GIB:.1f} GiB, {memory.available / GIB:.1f} free"
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        allowed = Path(limit).read_text("ascii").strip() if Path(limit).is_file() else ""
        if allowed.isdigit() and int(allowed) < memory.total:
            text += f"; this container may use {int(allowed) / GIB:.1f} GiB"
    return [("memory", text)], []


def _workers() -> Part:
    """What data workers need: shared memory for their batches, an open file for each tensor."""
    facts = [("data workers", f"started by {multiprocessing.get_context().get_start_method()}")]
    findings = []
    try:
        import resource
    except ImportError:  # Windows has neither
        return facts, []
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY:
        facts.append(("open files", f"at most {files:,}"))
        if files < OPEN_FILES:
            few = f"{files} open files are few for data workers: ulimit -n 4096"
            findings.append(Finding(few, bad=False))
    shared = Path("/dev/shm")
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        facts.append((f"size of {shared}", f"{size / GIB:.1f} GiB"))
        if size < GIB:
            small = (
                f"{shared} is small, data workers pass their batches through it: "
                "docker run --shm-size=2g, or data.workers=0"
            )
            findings.append(Finding(small, bad=False))
    return facts, findings


def _space() -> Part:
    runs, temporary = Path("runs"), Path(tempfile.gettempdir())
    facts, findings = [], []
    for folder in (runs if runs.is_dir() else Path(), temporary):
        place, free = folder.absolute(), shutil.disk_usage(folder).free
        facts.append((f"free in {place}", f"{free / GIB:.1f} GiB"))
        if free < GIB:
            findings.append(Finding(f"{place} is almost full: checkpoints will not fit", bad=False))
    data = Path("data")
    names = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    if names:
        facts.append(("data here", ", ".join(f"data/{name}" for name in names[:8])))
    return facts, findings


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # numbers of parameters in glibc's malloc.h
_LARGEST = 2**30


def processors() -> int:
    """Return the number of logical processors that this process may use."""
    if hasattr(psutil.Process, "cpu_affinity"):  # not on macOS
        return len(psutil.Process().cpu_affinity())
    return os.cpu_count() or 1


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


def share_processors() -> None:
    """Let OpenMP threads sleep soon when they wait. For the process of a command only.

    GNU OpenMP spins at barriers. Beside another busy process a network runs 4 to 20 times slower,
    since spinning threads hold the cores that the working ones need. It reads the variable when
    torch is imported. A user's own setting stays.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = "1000"


def relax_garbage_collection() -> None:
    """Run Python's garbage collector rarely, and not at exit. For the process of a command only.

    The import of torch and Lightning creates a million objects that live until the end. With
    Python's defaults the collector visits them for half a second during the import and for
    another second at exit (two 2.6 GHz cores; 4.2 s for the import and the exit, then 2.5 s).
    """
    gc.set_threshold(10_000, 20, 100)
    atexit.register(gc.freeze)
