import os
import re
import resource
import subprocess
import sys

import pytest

from hrseg.utils import system as machine
from hrseg.utils.system import Finding


def test_the_precision_that_fit_would_choose_is_shown_with_its_reason(monkeypatch):
    from hrseg.commands import doctor
    from hrseg.training import trainer as devices

    monkeypatch.setattr(devices, "choose_precision", lambda kind: devices.Choice("16-mixed", kind))
    facts = dict(doctor.report()[0])
    kind = "cuda" if "device cuda:0" in facts else "mps" if "device mps" in facts else "cpu"
    assert facts["trainer.precision"] == f"16-mixed by default: {kind}"


def test_a_torch_that_does_not_import_is_a_finding_and_no_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    facts, (finding,) = machine._torch()
    assert not facts and finding.bad and "torch cannot be imported" in finding.text


def test_memory_is_that_of_the_machine_as_the_kernel_says():
    ((name, text),), findings = machine._memory()
    total, free = (float(number) for number in re.findall(r"([\d.]+) GiB, ([\d.]+) free", text)[0])
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (name, findings) == ("memory", [])
    assert abs(total - pages / 2**30) < 0.1 and 0 < free <= total


def test_the_processors_are_those_that_this_process_may_use():
    script = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    script += "from hrseg.utils.system import processors; print(processors())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).stdout == b"1\n"


@pytest.mark.parametrize(("files", "noted"), [(256, True), (1024, False), (-1, False)])
def test_few_open_files_are_noted(monkeypatch, files, noted):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (files, files))
    facts, findings = machine._workers()
    assert any("ulimit -n" in finding.text for finding in findings) == noted
    assert ("open files" in dict(facts)) == (files != -1)


def test_small_shared_memory_and_a_full_disk_are_noted(monkeypatch, tmp_path):
    usage = type("usage", (), {"total": 64 * 2**20, "free": 5 * 2**20})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage)
    monkeypatch.chdir(tmp_path)
    found: list[Finding] = [*machine._space()[1], *machine._workers()[1]]
    assert any(f"{tmp_path} is almost full" in finding.text for finding in found)
    assert not any(finding.bad for finding in found)
    if machine.Path("/dev/shm").is_dir():
        assert any("--shm-size" in finding.text for finding in found)


def test_the_disk_that_holds_the_runs_is_looked_at_and_the_data_that_lie_here(
    monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    assert f"free in {tmp_path}" in dict(machine._space()[0])
    (tmp_path / "runs").mkdir()
    (tmp_path / "data" / "camvid").mkdir(parents=True)
    facts = dict(machine._space()[0])
    assert f"free in {tmp_path / 'runs'}" in facts
    assert facts["data here"] == "data/camvid"
