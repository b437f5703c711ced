import pytest
from packaging.requirements import Requirement

from hrseg import doctor
from hrseg.doctor import Finding, check_cv2, check_versions, diagnose

GOOD = {
    "torch": "2.13.0+cpu",
    "pytorch-lightning": "2.6.6",
    "pillow": "12.3.0",
    "albumentations": "2.0.8",
    "numpy": "2.4.6",
    "opencv-python-headless": "5.0.0.93",
}


def texts(findings):
    return [finding.text for finding in findings]


def test_good_versions_have_no_findings():
    assert texts(check_versions(GOOD, [Requirement("torch>=2.10")])) == []
    assert texts(check_cv2(GOOD)) == []


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [
        ("torch", "2.9.1+cu128", "CVE-2026-24747"),
        ("pytorch-lightning", "2.6.5", "CVE-2026-58659"),
        ("lightning", "2.6.2", "malware"),
        ("lightning", "2.6.3", "malware"),
        ("pillow", "12.2.0", "CVE"),
        ("pillow-simd", "9.5.0.post2", "behind"),
        ("albumentations", "1.4.24", "2.0.8"),
        ("albumentationsx", "2.0.11", "AGPL"),
        ("numpy", "1.26.4", "OpenCV 5"),
    ],
)
def test_known_bad_releases_are_found_with_the_reason(name, version, reason):
    (text,) = texts(check_versions({**GOOD, name: version}, []))
    assert text.startswith(f"{name} {version}: ") and reason in text
    assert "\n" not in text


def test_other_releases_of_lightning_are_left_alone():
    assert texts(check_versions({**GOOD, "lightning": "2.6.6"}, [])) == []


def test_a_version_out_of_bounds_is_told_once_and_a_missing_package_with_its_repair():
    needs = [Requirement("torch>=2.10"), Requirement("rich>=14"), Requirement("pillow>=12.3")]
    found = texts(check_versions({**GOOD, "torch": "2.4.0", "rich": "13.0"}, needs))
    assert len(found) == 2
    assert "rich 13.0: hrseg is made for rich>=14" in found
    missing = {name: version for name, version in GOOD.items() if name != "pillow"}
    assert texts(check_versions({**missing, "rich": "14.1"}, needs)) == [
        "pillow is missing: pip install 'pillow>=12.3'"
    ]


def test_two_builds_of_cv2_are_told_apart_and_repaired():
    (text,) = texts(check_cv2({**GOOD, "opencv-python": "4.12.0.88"}))
    assert "opencv-python 4.12.0.88 and opencv-python-headless 5.0.0.93" in text
    assert "pip uninstall -y opencv-python opencv-python-headless;" in text


def test_a_module_that_does_not_import_is_found_with_its_error():
    (finding,) = doctor._check_import("no_such_module_at_all", "install it")
    assert "No module named 'no_such_module_at_all'" in finding.text
    assert finding.text.endswith("install it") and finding.bad


def test_the_report_names_versions_devices_and_space():
    facts = dict(doctor.report()[0])
    assert {"hrseg", "python", "torch", "opencv-python-headless", "torch build"} <= set(facts)
    assert any(name.startswith("free in") for name in facts)
    assert facts["albumentations"] == "2.0.8"


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ([], 0, "no known problems"),
        ([Finding("disk is small", bad=False)], 0, "note: disk is small"),
        ([Finding("torch 2.9: old"), Finding("disk", bad=False)], 4, "BAD: torch 2.9: old"),
    ],
)
def test_the_exit_code_says_whether_anything_is_bad(monkeypatch, capsys, findings, code, last):
    monkeypatch.setattr(doctor, "report", lambda: ([("python", "3.11")], findings))
    assert diagnose() == code
    assert last in capsys.readouterr().out.splitlines()


def test_small_shared_memory_and_a_full_disk_are_noted(monkeypatch):
    usage = type("usage", (), {"total": 64 * 2**20, "free": 5 * 2**20})
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: usage)
    found = doctor._space()[1]
    assert any("almost full" in finding.text for finding in found)
    assert not any(finding.bad for finding in found)
    if doctor.Path("/dev/shm").is_dir():
        assert any("--shm-size" in finding.text for finding in found)
