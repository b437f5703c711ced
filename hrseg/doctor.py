"""What this machine has, and what is known to be wrong with it: `hrseg doctor`."""

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hrseg import __version__

KNOWN_BAD = (
    ("torch", "<2.10", "CVE-2026-24747, a checkpoint can corrupt memory even under weights_only"),
    (
        "pytorch-lightning",
        "<2.6.6",
        "CVE-2026-58659, a checkpoint can run code even under weights_only",
    ),
    (
        "lightning",
        "==2.6.2",
        "malware (April 2026): uninstall it, renew this machine's credentials",
    ),
    (
        "lightning",
        "==2.6.3",
        "malware (April 2026): uninstall it, renew this machine's credentials",
    ),
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


def diagnose() -> int:
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


def report() -> tuple[list[tuple[str, str]], list[Finding]]:
    """Return facts (name, value) and findings about this environment and machine."""
    installed = installed_versions()
    requirements = _requirements()
    facts = [
        ("hrseg", __version__ if "hrseg" in installed else f"{__version__} (not installed)"),
        ("python", f"{platform.python_version()} {sys.executable}"),
        ("system", platform.platform()),
    ]
    shown = dict.fromkeys([requirement.name for requirement in requirements] + [*ALSO_SHOWN])
    facts += [(name, installed[name]) for name in shown if name in installed]
    findings = [
        *check_versions(installed, requirements),
        *check_cv2(installed),
        *_check_import("cv2", "pip install --force-reinstall opencv-python-headless"),
    ]
    if "torchvision" in installed:
        repair = "hrseg does not need it: pip uninstall torchvision, or install torch's match"
        findings += _check_import("torchvision", repair)
    for part in (_torch, _processor, _space):
        more_facts, more_findings = part()
        facts += more_facts
        findings += more_findings
    return facts, findings


def installed_versions() -> dict[str, str]:
    """Return the version of every installed distribution, names as on the package index."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            # The first one on the path is the one that is imported.
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


def check_versions(
    installed: Mapping[str, str], requirements: list[Requirement]
) -> Iterator[Finding]:
    """Yield what is installed in a known-bad release, missing, or outside of hrseg's bounds."""
    told = set()
    for name, releases, reason in KNOWN_BAD:
        version = installed.get(name)
        if version is not None and SpecifierSet(releases).contains(version, prereleases=True):
            told.add(name)
            yield Finding(f"{name} {version}: {reason}")
    for requirement in requirements:
        version = installed.get(requirement.name)
        if version is None:
            yield Finding(f"{requirement.name} is missing: pip install '{requirement}'")
        elif requirement.name not in told and not requirement.specifier.contains(
            version, prereleases=True
        ):
            yield Finding(f"{requirement.name} {version}: hrseg is made for {requirement}")


def check_cv2(installed: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding if several OpenCV builds share the folder cv2."""
    builds = [name for name in CV2_BUILDS if name in installed]
    if len(builds) > 1:
        yield Finding(
            f"{' and '.join(f'{name} {installed[name]}' for name in builds)} overwrite each "
            f"other's folder cv2: pip uninstall -y {' '.join(builds)}; "
            "pip install opencv-python-headless"
        )


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


def _torch() -> tuple[list[tuple[str, str]], list[Finding]]:
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
        findings.append(
            Finding(
                "an NVIDIA driver is installed, but this torch does not use it "
                f"({'driver too old?' if cuda else 'a CPU build'}): see pytorch.org/get-started",
                bad=False,
            )
        )
    facts.append(
        ("threads", f"{torch.get_num_threads()} of torch, {os.cpu_count()} logical processors")
    )
    facts.append(("vector units", torch.backends.cpu.get_cpu_capability()))
    return facts, findings


def _processor() -> tuple[list[tuple[str, str]], list[Finding]]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return [("processor", platform.processor() or platform.machine())], []
    model = re.search(r"model name\s*: (.*)", text)
    words = set(text.split())
    units = [unit for unit in ("amx_bf16", "avx512_bf16", "bf16") if unit in words]
    return [
        ("processor", model[1] if model else platform.machine()),
        ("bf16 in hardware", units[0] if units else "no: keep trainer.precision=32 on this CPU"),
    ], []


def _space() -> tuple[list[tuple[str, str]], list[Finding]]:
    here, temporary, shared = Path.cwd(), Path(tempfile.gettempdir()), Path("/dev/shm")
    facts, findings = [], []
    for folder in (here, temporary):
        free = shutil.disk_usage(folder).free
        facts.append((f"free in {folder}", f"{free / GIB:.1f} GiB"))
        if free < GIB:
            findings.append(
                Finding(f"{folder} is almost full: checkpoints will not fit", bad=False)
            )
    if shared.is_dir():
        size = shutil.disk_usage(shared).total
        facts.append((f"size of {shared}", f"{size / GIB:.1f} GiB"))
        if size < GIB:
            findings.append(
                Finding(
                    f"{shared} is small, data workers pass their batches through it: "
                    "docker run --shm-size=2g, or data.workers=0",
                    bad=False,
                )
            )
    return facts, findings
