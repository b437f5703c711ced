"""Scripts are executable; an editable install with the options of scripts/setup."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = """\
import hrseg

model = hrseg.create_model("hrnet_w18", num_classes=2)
predictor = hrseg.load("a.ckpt")
reveal_type(predictor.predict("a.png").overlay)
reveal_type(predictor(["a.png", "b.png"])[0].class_names)
reveal_type(hrseg.SegmentationTask.load_from_checkpoint("a.ckpt"))
"""


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, **options)


def test_every_script_that_names_its_interpreter_is_executable():
    scripts = [path for path in (ROOT / "scripts").rglob("*") if path.is_file()]
    named = [path for path in scripts if path.read_bytes().startswith(b"#!")]
    assert len(named) > 20
    assert [path for path in named if not os.access(path, os.X_OK)] == []


@pytest.mark.slow
def test_mypy_and_the_configs_work_with_an_editable_install(tmp_path):
    (option,) = re.findall(
        r'^editable="--config-settings (\S+)"', (ROOT / "scripts/setup").read_text(), re.M
    )
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("configs", "__pycache__")
    shutil.copytree(ROOT / "hrseg", source / "hrseg", ignore=ignored)
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    # Link the packages of this environment except hrseg.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    for package in Path(packages).iterdir():
        if "hrseg" not in package.name and package.suffix != ".pth":
            (site / package.name).symlink_to(package)
    install = ("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index")
    done = run(python, *install, "--config-settings", option, "-e", str(source))
    assert done.returncode == 0, done.stderr
    (tmp_path / "project.py").write_text(PROJECT)
    clean = {"cwd": tmp_path, "env": {"PATH": "/usr/bin:/bin"}}
    output = run(python, "-m", "mypy", "--strict", "project.py", **clean).stdout
    assert "error" not in output, output
    types = re.findall(r'Revealed type is "(.*)"', output)
    assert types[1:] == ["list[str]", "hrseg.training.task.SegmentationTask"], output
    assert "ndarray" in types[0]
    configs = run(python, "-m", "hrseg", "configs", **clean)
    assert "camvid_w18_small" in configs.stdout, configs.stderr
