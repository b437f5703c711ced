"""The command `hrseg doctor`: known-bad releases, missing packages, devices and disk space."""

import sys
from collections import namedtuple
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from hrseg.commands import doctor
from hrseg.commands.doctor import check_cv2, check_versions, installed_versions, run
from hrseg.training import trainer

GOOD = {
    "torch": "2.13.0+cpu",
    "pytorch-lightning": "2.6.6",
    "pillow": "12.3.0",
    "albumentations": "2.0.8",
    "numpy": "2.4.6",
    "opencv-python-headless": "5.0.0.93",
    "omegaconf": "2.4.0",
    "torchmetrics": "1.9.0",
}
BAD = [  # name in the metadata of the wheel, release, text of the reason
    ("torch", "2.9.1+cu128", "CVE-2026-24747"),
    ("pytorch-lightning", "2.6.5", "CVE-2026-58659"),
    ("lightning", "2.6.2", "malware"),
    ("lightning", "2.6.3", "malware"),
    ("Pillow", "12.2.0", "CVE"),
    ("Pillow-SIMD", "9.5.0.post2", "security fixes"),
    ("albumentations", "1.4.24", "2.0.8"),
    ("albumentationsx", "2.0.11", "AGPL"),
    ("numpy", "1.26.4", "OpenCV 5"),
    ("omegaconf", "2.3.0", "omegaconf<2.5,>=2.4"),
    ("omegaconf", "2.5.0", "omegaconf<2.5,>=2.4"),
    ("torchmetrics", "1.8.2", "torchmetrics<2,>=1.9"),
    ("opencv_python", "4.12.0.88", "overwrite each other's folder cv2"),
    ("opencv_contrib_python", "4.12.0.88", "overwrite each other's folder cv2"),
]


def put(folder, name, version):
    """Write the metadata of an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment with only good releases; `put` adds to it."""
    for name, version in GOOD.items():
        put(tmp_path, name, version)
    needed = [line for line in metadata.requires("hrseg") or [] if Requirement(line).name in GOOD]
    monkeypatch.setattr(metadata, "requires", lambda name: needed)
    monkeypatch.setattr(doctor, "check_import", lambda module, repair: [])
    monkeypatch.setattr(doctor, "check_devices", lambda: ([], []))
    monkeypatch.setattr(doctor.sys, "path", [str(tmp_path)])
    return tmp_path


def test_an_environment_of_good_releases_has_no_findings(environment, capsys):
    assert installed_versions() == GOOD
    assert run(None) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no known problems"


@pytest.mark.parametrize(("name", "version", "reason"), BAD)
def test_each_known_bad_release_is_found_among_installed_packages(
    environment, capsys, name, version, reason
):
    for info in environment.glob(f"{name.lower().replace('-', '_')}-*.dist-info"):
        (info / "METADATA").unlink()
        info.rmdir()
    put(environment, name, version)
    assert run(None) == 4
    *_, line = capsys.readouterr().out.splitlines()
    assert line.startswith("BAD: ") and reason in line
    assert f"{name.lower().replace('_', '-')} {version}" in line


def test_an_unsupported_and_a_missing_package_are_reported_once_with_a_fix():
    needs = [Requirement("torch>=2.10"), Requirement("rich>=14"), Requirement("pillow>=12.3")]
    findings = list(check_versions({**GOOD, "torch": "2.4.0", "rich": "13.0"}, needs))
    assert len(findings) == 2
    assert "BAD: rich 13.0: hrseg needs rich>=14" in findings
    missing = {name: version for name, version in GOOD.items() if name != "pillow"}
    assert list(check_versions({**missing, "rich": "14.1"}, needs)) == [
        "BAD: pillow is missing: pip install 'pillow>=12.3'"
    ]


def test_two_builds_of_cv2_are_reported_with_a_fix():
    (text,) = check_cv2({**GOOD, "opencv-python": "4.12.0.88"})
    assert "opencv-python 4.12.0.88 and opencv-python-headless 5.0.0.93" in text
    assert "pip uninstall -y opencv-python opencv-python-headless;" in text


def test_a_module_with_a_failing_import_is_reported_with_its_error():
    (finding,) = doctor.check_import("no_such_module_at_all", "install it")
    assert finding.startswith("BAD: ") and "No module named 'no_such_module_at_all'" in finding
    assert finding.endswith("install it")


def test_a_failing_import_of_torch_is_a_finding(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    facts, (finding,) = doctor.check_devices()
    assert not facts and finding.startswith("BAD: torch cannot be imported")


def test_the_default_precision_is_printed_with_its_reason(monkeypatch):
    monkeypatch.setattr(trainer, "choose_precision", lambda kind: trainer.Choice("16-mixed", kind))
    facts = dict(doctor.report()[0])
    kind = "cuda" if "device cuda:0" in facts else "mps" if "device mps" in facts else "cpu"
    assert facts["trainer.precision"] == f"16-mixed by default: {kind}"
    assert {"hrseg", "python", "torch", "opencv-python-headless", "torch build"} <= set(facts)
    assert facts["albumentations"] == "2.0.8"


def test_small_shared_memory_and_a_full_disk_are_noted(monkeypatch):
    usage = namedtuple("usage", "total used free")(2**36, 2**36, 2**26)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    facts, notes = doctor.check_space()
    assert "GiB free" in dict(facts)["memory"]
    assert any("/dev/shm has less than 1 GiB free: docker run" in note for note in notes)
    assert any("runs=FOLDER" in note for note in notes)
