"""Missing packages of scripts/gpu_proof, and their temporary installation from wheels.

This module needs only the standard library.
"""

import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
BASE = ("torch", "pytorch-lightning")  # never installed here, because they belong to the GPU
# Packages that the checks import, and their own requirements, which are installed with them.
REQUIRED = {
    "albumentations": ("albucore", "scipy", "simsimd", "stringzilla"),
    "numpy": (),
    "omegaconf": ("PyYAML",),
    "opencv-python-headless": (),
    "pillow": (),
    "psutil": (),
    "pydantic": ("annotated-types", "pydantic_core", "typing_extensions", "typing-inspection"),
    "rasterio": ("affine", "attrs", "certifi", "click", "click-plugins", "cligj", "pyparsing"),
    "rich": ("markdown-it-py", "mdurl", "Pygments"),
    "safetensors": (),
    "torchmetrics": ("lightning-utilities",),
}
# pip compares these names exactly with those of the wheels.
PLATFORMS = [f"manylinux{tag}" for tag in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "_2_5", "1")]


class PackageError(Exception):
    """Packages are missing or cannot be installed; the message is for the user."""


@contextmanager
def installed(wheels: Path | None) -> Iterator[None]:
    """Install missing packages from a folder of wheels until the end of the context.

    They go to a temporary folder on PYTHONPATH; the environment of the machine stays unchanged.

    Raises:
        PackageError: torch or Lightning is missing, or the folder lacks a package.
    """
    if unusable := [problem for name in BASE if (problem := problem_of(name))]:
        raise PackageError(
            f"{sys.executable}: {'; '.join(unusable)}.\n"
            "Expected: an environment with PyTorch for the GPU, and pytorch-lightning 2.6.6.\n"
            "Fix: activate it, or set PYTHON=/path/to/its/python"
        )
    problems = {name: problem for name in REQUIRED if (problem := problem_of(name))}
    if not problems:
        print("required modules: complete", flush=True)
        yield
        return
    print(f"required modules: {'; '.join(problems.values())}", flush=True)
    pins = pinned(problems)
    if wheels is None:
        raise PackageError(
            f"{len(problems)} required packages are missing.\n"
            "Expected: a folder with their wheels. Fix: on a machine with a network\n"
            f"{download_command(pins)}\nthen run this script with --wheels wheels"
        )
    with TemporaryDirectory(prefix="hrseg-wheels-") as target:
        install(pins, wheels, target)
        add_to_path(target)
        print(f"installed for this run only: {' '.join(pins)}", flush=True)
        yield


def add_to_path(*folders: str) -> None:
    """Put folders first on the import path of this process and of those that it starts."""
    sys.path[:0] = folders
    importlib.invalidate_caches()
    before = filter(None, [os.environ.get("PYTHONPATH")])
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *before])


def problem_of(name: str) -> str:
    """Return why a package cannot be used, or an empty text."""
    try:
        present = version(name)
    except PackageNotFoundError:
        return f"{name} is missing"
    from packaging.specifiers import SpecifierSet  # a requirement of pytorch-lightning

    wanted = requirements().get(name.lower(), "")
    fits = SpecifierSet(wanted).contains(present, prereleases=True)
    return "" if fits else f"{name} {present} is not {wanted}"


def requirements() -> dict[str, str]:
    """Return the version specifier of each package in `install_requires` of setup.cfg."""
    section = (ROOT / "setup.cfg").read_text(encoding="utf-8").split("install_requires =")[1]
    lines = re.findall(r"^ +([\w.-]+)([<>=!~][^#\s]*)$", section.split("\n\n")[0], re.MULTILINE)
    return {name.lower(): specifier for name, specifier in lines}


def pinned(names: Iterable[str]) -> list[str]:
    """Return `name==version` of packages and of their requirements, from constraints.txt."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {line.partition("==")[0]: line for line in text.splitlines() if "==" in line}
    wanted = [other for name in names for other in (name, *REQUIRED[name])]
    return [pins[name] for name in dict.fromkeys(wanted)]


def download_command(pins: list[str]) -> str:
    """Return the command that fills a folder with wheels for this Python and machine."""
    major, minor = sys.version_info[:2]
    platforms = " ".join(f"--platform {name}_{platform.machine()}" for name in PLATFORMS)
    return (
        "python3 -m pip download --no-deps --only-binary=:all: --implementation cp "
        f"--python-version {major}.{minor} {platforms} -d wheels {' '.join(pins)}"
    )


def install(pins: list[str], wheels: Path, target: str) -> None:
    """Install packages from a folder of wheels into the folder `target`."""
    if not wheels.is_dir():
        raise PackageError(
            f"--wheels {wheels}: no such folder.\nExpected: a folder of wheels. Fix: on a machine "
            f"with a network\n{download_command(pins)}"
        )
    options = "install --quiet --no-index --no-deps --disable-pip-version-check --find-links"
    command = [sys.executable, "-m", "pip", *options.split(), str(wheels), "--target", target]
    pip = subprocess.run([*command, *pins], capture_output=True, text=True)
    if pip.returncode:
        errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
        reason = (errors or pip.stderr.splitlines() or ["pip printed no error"])[-1]
        raise PackageError(
            f"--wheels {wheels}: {reason}\n"
            f"Expected: a wheel of each missing package. Fix: on a machine with a network\n"
            f"{download_command(pins)}"
        )
