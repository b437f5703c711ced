"""Memory allocator and processors of the process."""

import os
import subprocess
import sys

import psutil
import pytest

from hrseg.utils.system import share_processors

# Number of cleared pages while a block of 64 MiB is allocated and freed ten more times.
FAULTS = """
import resource, sys, torch
from hrseg.utils.system import keep_memory
kept = sys.argv[1] == "keep" and keep_memory()
assert kept == (sys.argv[1] == "keep")
def faults():
    torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = [faults() for _ in range(20)][-1]  # warm-up of the allocator
print([faults() for _ in range(10)][-1] - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_is_reused_without_the_system():
    def count(how):
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    pages = 2**26 // 4096
    assert count("default") > 5 * pages
    assert count("keep") < pages


def test_the_number_of_processors_respects_the_affinity():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    script += "from hrseg.utils.system import processors; print(processors())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).stdout == b"1\n"


@pytest.mark.parametrize(
    ("percent", "own", "expected"),
    [(0.5, {}, None), (50.0, {}, "1000"), (50.0, {"GOMP_SPINCOUNT": "7"}, "7")],
)
def test_threads_sleep_soon_only_beside_other_work(monkeypatch, percent, own, expected):
    monkeypatch.setattr("os.environ", dict(own))
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval: percent)
    share_processors()
    assert os.environ.get("GOMP_SPINCOUNT") == expected
