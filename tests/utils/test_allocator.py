import subprocess
import sys

import pytest

from hrseg.utils import system as allocator

# How many pages are cleared by the system when a block of 64 MiB is taken and freed ten times more.
FAULTS = """
import resource, sys, torch
from hrseg.utils.system import keep_memory
kept = sys.argv[1] == "keep" and keep_memory()
assert kept == (sys.argv[1] == "keep")
def faults():
    torch.zeros(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
before = [faults() for _ in range(20)][-1]  # blocks find their places
print([faults() for _ in range(10)][-1] - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc alone")
def test_blocks_are_used_again_without_asking_the_system():
    def count(how):
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    pages = 2**26 // 4096
    assert count("default") > 5 * pages
    assert count("keep") < pages


def test_other_systems_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    assert allocator.keep_memory() is False
    monkeypatch.setattr(allocator.sys, "platform", "linux")
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    assert allocator.keep_memory() is False
