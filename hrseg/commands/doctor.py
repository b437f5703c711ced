"""`hrseg doctor`: versions, devices and known problems of this environment."""

import argparse
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion

from hrseg.utils.constants import __version__
from hrseg.utils.system import Finding, Part, machine

MALWARE = "malware (April 2026): uninstall it, renew this machine's credentials"
KNOWN_BAD = (
    ("torch", "<2.10", "CVE-2026-24747, a checkpoint can corrupt memory even under weights_only"),
    (
        "pytorch-lightning",
        "<2.6.6",
        "CVE-2026-58659, a checkpoint can run code even under weights_only",
    ),
    ("lightning", "==2.6.2", MALWARE),
    ("lightning", "==2.6.3", MALWARE),
    ("pillow", "<12.3", "decoder CVEs of 2026"),
    ("pillow-simd", "", "behind on Pillow's security fixes, and installs over it"),
    ("albumentations", "!=2.0.8", "hrseg is written for the last MIT release, 2.0.8"),
    ("albumentationsx", "", "AGPL, and installs over albumentations"),
    ("numpy", "<2.0", "OpenCV 5 needs NumPy 2"),
)
CV2_BUILDS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
RUNTIMES = ("onnxruntime", "openvino", "nncf")
ALSO_SHOWN = (*CV2_BUILDS, *"torchvision tensorboard wandb mlflow".split(), *RUNTIMES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command: none."""


def run(arguments: argparse.Namespace) -> int:
    """Print facts and findings; return the exit code, 0, or 4 if anything is bad."""
    facts, findings = report()
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:{width}}  {value}")
    print()
    for finding in findings:
        print(f"{'BAD' if finding.bad else 'note'}: {finding.text}")
    if not findings:
        print("no known problems")
    return 4 if any(finding.bad for finding in findings) else 0


def report() -> Part:
    """Return facts (name, value) and findings about this environment and machine."""
    installed = installed_versions()
    requirements = _requirements()
    facts = [
        ("hrseg", __version__ if "hrseg" in installed else f"{__version__} (not installed)"),
        ("python", f"{platform.python_version()} {sys.executable}"),
        ("system", platform.platform()),
    ]
    shown = dict.fromkeys([*(_normal(needed.name) for needed in requirements), *ALSO_SHOWN])
    facts += [(name, installed[name]) for name in shown if name in installed]
    findings = [
        *check_versions(installed, requirements),
        *check_cv2(installed),
        *_check_import("cv2", "pip install --force-reinstall opencv-python-headless"),
    ]
    if "torchvision" in installed:
        repair = "hrseg does not need it: pip uninstall torchvision, or install torch's match"
        findings += _check_import("torchvision", repair)
    more_facts, more_findings = machine()
    return [*facts, *more_facts, *_precision()], [*findings, *more_findings]


def _precision() -> list[tuple[str, str]]:
    """Return the default of `trainer.precision` on this machine, with its reason."""
    try:
        import torch

        from hrseg.training.trainer import choose_precision
    except Exception:  # `machine` reports it
        return []
    mps = torch.backends.mps.is_available()
    choice = choose_precision("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    return [("trainer.precision", f"{choice.precision} by default: {choice.reason}")]


def installed_versions() -> dict[str, str]:
    """Return the version of every installed distribution, names as on the package index."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            # The first one on the path is the one that is imported.
            found.setdefault(_normal(name), distribution.version)
    return found


def check_versions(
    installed: Mapping[str, str], requirements: list[Requirement]
) -> Iterator[Finding]:
    """Yield what is installed in a known-bad release, missing, or outside of hrseg's bounds."""
    told = set()
    for name, releases, reason in KNOWN_BAD:
        version = installed.get(name)
        if version is not None and _is_in(version, SpecifierSet(releases)):
            told.add(name)
            yield Finding(f"{name} {version}: {reason}")
    for requirement in requirements:
        name = _normal(requirement.name)
        version = installed.get(name)
        if version is None:
            yield Finding(f"{name} is missing: pip install '{requirement}'")
        elif name not in told and not _is_in(version, requirement.specifier):
            yield Finding(f"{name} {version}: hrseg is made for {requirement}")


def check_cv2(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding if several OpenCV builds share the folder cv2."""
    builds = [name for name in CV2_BUILDS if name in installed]
    if len(builds) > 1:
        yield Finding(
            f"{' and '.join(f'{name} {installed[name]}' for name in builds)} overwrite each "
            f"other's folder cv2: pip uninstall -y {' '.join(builds)}; "
            "pip install opencv-python-headless"
        )


def _normal(name: str) -> str:
    """Return the name of a distribution as the package index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_in(version: str, releases: SpecifierSet) -> bool:
    try:
        return releases.contains(version, prereleases=True)
    except InvalidVersion:  # of somebody's own build, which no bound knows
        return False


def _requirements() -> list[Requirement]:
    """Return what hrseg needs in any case, as its installed metadata say."""
    try:
        lines = metadata.requires("hrseg") or []
    except metadata.PackageNotFoundError:
        return []
    requirements = [Requirement(line) for line in lines]
    return [item for item in requirements if item.marker is None or item.marker.evaluate()]


def _check_import(module: str, repair: str) -> list[Finding]:
    """Import in a process of its own: a broken build may take the process down."""
    command = [sys.executable, "-c", f"import {module}"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode == 0:
        return []
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return [Finding(f"{module} cannot be imported ({lines[-1]}). {repair}")]
