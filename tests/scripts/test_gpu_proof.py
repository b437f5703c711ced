"""scripts/gpu_proof: every check on a CPU, missing packages, and failures of a check."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.paths import ROOT

SCRIPT = ROOT / "scripts" / "gpu_proof"
ENTRIES = [
    "machine", "golden_logits", "golden_training", "grad_scaler", "resume", "ddp", "out_of_memory",
    "training_speed", "evaluation_speed", "data_loading", "torch_compile", "onnx_runtime",
    "tensorrt",
]  # fmt: skip


@pytest.fixture
def modules(monkeypatch):
    """Make the modules of scripts/gpu importable, and restore the paths that they change."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "scripts" / "gpu"), *sys.path])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.fixture
def packages(modules):
    import packages

    return packages


def run(*words, **environment):
    variables = {**os.environ, "PYTHON": sys.executable, **environment}
    command = ["bash", str(SCRIPT), *map(str, words)]
    return subprocess.run(command, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_every_check_passes_on_a_cpu_at_small_sizes(tmp_path):
    done = run("--device", "cpu", "--json", tmp_path / "proof.json", "--minutes", "20")
    results = json.loads((tmp_path / "proof.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(results) == ENTRIES
    assert all(entry["ok"] and entry["seconds"] >= 0 for entry in results.values())
    assert [name for name, entry in results.items() if "skipped" in entry] == ["tensorrt"]
    assert results["golden_logits"]["relative_error"]["float32"] < 1e-5
    assert results["resume"]["unequal"] == [] and results["resume"]["stopped_after_step"] == 6
    assert results["ddp"]["backend"] == "gloo"
    assert results["ddp"]["largest_difference_of_weights"] == 0
    assert results["out_of_memory"]["windows_after"] == 1
    assert results["grad_scaler"]["scales"][1:3] == [1024, 512]
    assert results["data_loading"]["hrnet_w18_small_v1"]["workers"] >= 1
    table = (tmp_path / "proof.md").read_text()
    for name in ENTRIES:
        for case, text in results[name].get("rows", []):
            assert f"| {case} | {text} |" in table


def test_a_machine_without_a_gpu_gives_one_message(tmp_path):
    done = run("--json", tmp_path / "proof.json", CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 2
    assert "finds no CUDA device.\nExpected: an NVIDIA GPU" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(json.loads((tmp_path / "proof.json").read_text())) == ["machine"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "the following arguments are required: --json"),
        (("--json", "missing/proof.json"), "missing/proof.json: No such file or directory"),
        (("--json", "a.json", "--device", "tpu"), "invalid choice: 'tpu'"),
    ],
)
def test_wrong_options_are_refused(words, message):
    done = run(*words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_an_environment_without_torch_gives_one_message(tmp_path):
    venv.create(tmp_path / "venv", with_pip=False)
    python = str(tmp_path / "venv" / "bin" / "python")
    done = run("--json", tmp_path / "proof.json", PYTHON=python, PYTHONPATH="")
    assert done.returncode == 2
    assert "torch is missing; pytorch-lightning is missing.\nExpected:" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_packages_and_their_requirements_are_complete(packages):
    base = {"torch", "pytorch-lightning", "numpy", "packaging", "setuptools"}
    named = {name: others for name, others in packages.REQUIRED.items()}
    known = {canonicalize_name(name) for entry in named.items() for name in (entry[0], *entry[1])}
    for name in sorted(known):
        for line in requires(name) or []:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies:
                assert canonicalize_name(requirement.name) in known | base, f"{name}: {line}"


def test_a_missing_and_an_old_package_are_named_with_the_download_command(
    packages, monkeypatch, capsys
):
    present = packages.version

    def version(name):
        if name == "omegaconf":
            raise PackageNotFoundError(name)
        return "11.0" if name == "pillow" else present(name)

    monkeypatch.setattr(packages, "version", version)
    with pytest.raises(packages.PackageError) as raised, packages.installed(None):
        pass
    assert "omegaconf is missing; pillow 11.0 is not >=12.3" in capsys.readouterr().out
    command = next(line for line in str(raised.value).splitlines() if "pip download" in line)
    constraints = (ROOT / "constraints.txt").read_text().splitlines()
    wanted = re.search(r"-d wheels (.*)", command)[1].split()
    assert [word.partition("==")[0] for word in wanted] == ["omegaconf", "PyYAML", "pillow"]
    assert all(word in constraints for word in wanted)
    assert f"--python-version {sys.version_info[0]}.{sys.version_info[1]} " in command


def write_wheel(folder, name, version):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info, wheel = f"{name}-{version}.dist-info", "Wheel-Version: 1.0\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "value = 7\n")
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")


def test_missing_packages_come_from_the_wheels_for_one_run(packages, monkeypatch, tmp_path):
    (tmp_path / "constraints.txt").write_text("hrseg_absent==1.0\n")
    (tmp_path / "setup.cfg").write_text("[options]\ninstall_requires =\n    numpy>=2\n\n")
    monkeypatch.setattr(packages, "ROOT", tmp_path)
    monkeypatch.setattr(packages, "REQUIRED", {"hrseg_absent": ()})
    with (
        pytest.raises(packages.PackageError, match=r"No matching distribution.*hrseg_absent==1.0"),
        packages.installed(tmp_path),
    ):
        pass
    with pytest.raises(packages.PackageError, match="no such folder"):
        packages.install(["hrseg_absent==1.0"], tmp_path / "absent", str(tmp_path))
    write_wheel(tmp_path, "hrseg_absent", "1.0")
    with packages.installed(tmp_path):
        import hrseg_absent

        folder = os.path.dirname(hrseg_absent.__file__)
        assert hrseg_absent.value == 7
        assert os.environ["PYTHONPATH"].split(os.pathsep)[0] == folder
    assert not os.path.exists(folder)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise ValueError('one\\ntwo')", "ValueError: one"),
        ("print('last words', flush=True); os.abort()", "exit code -6; last output: last words"),
        ("time.sleep(60)", "no result after 2 s; last output: none"),
        ("subprocess.Popen(['sleep', '63']).wait()", "no result after 2 s"),
    ],
)
def test_a_failing_check_becomes_an_entry(modules, tmp_path, monkeypatch, body, error):
    from job import Job, run_in_process

    (tmp_path / "failing.py").write_text(
        f"import os, subprocess, time\ndef check(job):\n    {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    start = time.monotonic()
    entry = run_in_process("failing", "check", Job("cuda", True, tmp_path, {}), 2)
    assert time.monotonic() - start < 30
    assert entry["ok"] is False and entry["error"].startswith(error)
    if "63" in body:  # the processes of the check end too
        lists = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
        assert "sleep 63" not in lists


def test_the_table_names_failed_and_skipped_checks(modules):
    from proof import table

    results = {
        "machine": {"ok": True, "device": "NVIDIA X", "torch": "2.11", "driver": "580"},
        "resume": {"ok": False, "error": "3 values differ", "rows": [["Resume", "unequal"]]},
        "tensorrt": {"ok": True, "skipped": "no provider"},
    }
    assert textwrap.dedent("""\
        | measurement | result |
        |---|---|
        | `resume` | **failed**: 3 values differ |
        | Resume | unequal |
        | `tensorrt` | skipped: no provider |
        """) in table(results)
    assert table(results).startswith("NVIDIA X, ")
