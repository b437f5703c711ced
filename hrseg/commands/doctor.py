"""`hrseg doctor`: versions, devices and known problems of this environment."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion

from hrseg.utils.constants import __version__
from hrseg.utils.system import processor_name

MALWARE = "malware (April 2026): uninstall it, and renew this machine's credentials"
KNOWN_BAD = (
    ("torch", "<2.10", "CVE-2026-24747, a checkpoint can corrupt memory even under weights_only"),
    ("pytorch-lightning", "<2.6.6",
     "CVE-2026-58659, a checkpoint can run code even under weights_only"),
    ("lightning", "==2.6.2", MALWARE),
    ("lightning", "==2.6.3", MALWARE),
    ("pillow", "<12.3", "decoder CVEs of 2026"),
    ("pillow-simd", "", "lacks Pillow's security fixes, and overwrites Pillow's files"),
    ("albumentations", "!=2.0.8", "hrseg needs 2.0.8, the last release under the MIT licence"),
    ("albumentationsx", "", "AGPL licence, and overwrites the files of albumentations"),
    ("numpy", "<2.0", "OpenCV 5 needs NumPy 2"),
)  # fmt: skip
CV2_BUILDS = (
    "opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless"
).split()
ALSO_SHOWN = [
    *CV2_BUILDS,
    *"torchvision tensorboard wandb mlflow onnxruntime onnxruntime-gpu openvino nncf".split(),
]
REPAIRS = {
    "cv2": "pip install --force-reinstall opencv-python-headless",
    "torchvision": "pip uninstall torchvision (hrseg does not need it), or install its version "
    "for this torch",
}
Facts = list[tuple[str, str]]  # (name, value)


def add_arguments(parser: argparse.ArgumentParser) -> None: ...


def run(arguments: argparse.Namespace) -> int:
    """Print facts and findings; return 4 if a finding starts with BAD."""
    facts, findings = report()
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:{width}}  {value}")
    print("", *(findings or ["no known problems"]), sep="\n")
    return 4 if any(finding.startswith("BAD") for finding in findings) else 0


def report() -> tuple[Facts, list[str]]:
    """Return facts and findings about this environment and its devices."""
    installed = installed_versions()
    try:
        requirements = [Requirement(line) for line in metadata.requires("hrseg") or []]
    except metadata.PackageNotFoundError:
        requirements = []
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate()]
    shown = dict.fromkeys([*(canonicalize_name(item.name) for item in needed), *ALSO_SHOWN])
    facts = [
        ("hrseg", __version__),
        ("python", f"{platform.python_version()} {sys.executable}"),
        ("system", platform.platform()),
        *((name, installed[name]) for name in shown if name in installed),
    ]
    findings = [*check_versions(installed, needed), *check_cv2(installed)]
    for module, repair in REPAIRS.items():
        if module == "cv2" or module in installed:
            findings += check_import(module, repair)
    for devices, problems in (check_devices(), check_space()):
        facts += devices
        findings += problems
    return facts, findings


def installed_versions() -> dict[str, str]:
    """Return the version of every installed distribution, by its normalised name."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            # Python imports the first distribution on the path.
            versions.setdefault(canonicalize_name(name), distribution.version)
    return versions


def check_versions(installed: Mapping[str, str], needed: list[Requirement]) -> Iterator[str]:
    """Yield a finding per known-bad, missing or unsupported release."""
    reported = set()
    for name, releases, reason in KNOWN_BAD:
        version = installed.get(name)
        if version is not None and _is_in(version, SpecifierSet(releases)):
            reported.add(name)
            yield f"BAD: {name} {version}: {reason}"
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        version = installed.get(name)
        if version is None:
            yield f"BAD: {name} is missing: pip install '{requirement}'"
        elif name not in reported and not _is_in(version, requirement.specifier):
            yield f"BAD: {name} {version}: hrseg needs {requirement}"


def check_cv2(installed: Mapping[str, str]) -> Iterator[str]:
    """Yield a finding if several OpenCV builds share the folder cv2."""
    builds = [name for name in CV2_BUILDS if name in installed]
    if len(builds) > 1:
        versions = " and ".join(f"{name} {installed[name]}" for name in builds)
        repair = f"pip uninstall -y {' '.join(builds)}; pip install opencv-python-headless"
        yield f"BAD: {versions} overwrite each other's folder cv2: {repair}"


def check_import(module: str, repair: str) -> list[str]:
    """Import a module in a new process, because a broken build may crash it; return findings."""
    command = [sys.executable, "-c", f"import {module}"]
    process = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if process.returncode == 0:
        return []
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    return [f"BAD: {module} cannot be imported ({lines[-1]}). {repair}"]


def check_devices() -> tuple[Facts, list[str]]:
    """Return torch's build and devices, and the default of `trainer.precision` with its reason."""
    try:
        import torch

        from hrseg.training.trainer import choose_precision
    except Exception as error:
        return [], [f"BAD: torch cannot be imported ({error}): install it again"]
    cuda, gpu = torch.version.cuda, torch.cuda.is_available()
    mps = torch.backends.mps.is_available()
    facts = [("torch build", f"CUDA {cuda}" if cuda else "CPU")]
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = f"{device.total_memory / 2**30:.1f} GiB"
        facts.append((f"device cuda:{index}", f"{device.name}, {size}"))
    if mps:
        facts.append(("device mps", "Apple GPU"))
    threads = f"{os.cpu_count()} logical, torch uses {torch.get_num_threads()}"
    units = torch.backends.cpu.get_cpu_capability()
    choice = choose_precision("cuda" if gpu else "mps" if mps else "cpu")
    facts.append(("processors", f"{threads}; {processor_name()}, {units}"))
    facts.append(("trainer.precision", f"{choice.precision} by default: {choice.reason}"))
    if gpu or not shutil.which("nvidia-smi"):
        return facts, []
    reason = "driver too old?" if cuda else "a CPU build"
    note = f"note: an NVIDIA driver is installed, but this torch does not use it ({reason})"
    return facts, [f"{note}: see pytorch.org/get-started"]


def check_space() -> tuple[Facts, list[str]]:
    """Return memory, shared memory and disk space, and a note on each shortage."""
    memory = psutil.virtual_memory()
    size = f"{memory.total / 2**30:.1f} GiB, {memory.available / 2**30:.1f} GiB free"
    facts, notes = [("memory", size)], []
    for name, folder, repair in (
        ("shared memory", "/dev/shm", "docker run --shm-size=2g, or data.workers=0"),
        ("disk", os.getcwd(), "checkpoints will not fit, set runs=FOLDER"),
    ):
        if os.path.isdir(folder):
            free = shutil.disk_usage(folder).free / 2**30
            facts.append((name, f"{free:.1f} GiB free in {folder}"))
            if free < 1:
                notes.append(f"note: {folder} has less than 1 GiB free: {repair}")
    return facts, notes


def _is_in(version: str, releases: SpecifierSet) -> bool:
    try:
        return releases.contains(version, prereleases=True)
    except InvalidVersion:  # of a local build
        return False
