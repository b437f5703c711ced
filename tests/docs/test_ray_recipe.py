"""The Ray Data recipe of the documentation, with two workers on this machine (optional)."""

import os
import subprocess
import sys
import tempfile

import pytest
from PIL import Image

from hrseg.cli import main
from tests.conftest import picture, save_image
from tests.paths import ROOT
from tests.untrained import save_untrained

pytest.importorskip("ray.data")


@pytest.fixture
def photos(tmp_path):
    """Images that `ray.data.read_images` would decode differently, and a damaged one."""
    photos = tmp_path / "photos"
    for index in range(12):
        save_image(photos / f"{'deep/' * (index > 8)}{index}.png", picture((40, 48 + index), index))
    exif = Image.Exif()
    exif[0x0112] = 6
    save_image(photos / "rotated.jpg", picture((33, 64), 1), exif=exif)
    save_image(photos / "deep16.png", picture((33, 64), 2)[..., 0].astype("uint16") * 257)
    Image.fromarray(picture((40, 48), 3)).quantize(16).save(photos / "palette.png")
    (photos / "damaged.png").write_bytes((photos / "0.png").read_bytes()[:200])
    return photos


def recipe(photos, out, run, home):
    """Run the recipe; Ray writes its token into `home`, and its sockets need a short path."""
    paths = os.pathsep.join(sys.path)
    variables = {"HOME": str(home), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths}
    script = ROOT / "docs" / "examples" / "ray_predict.py"
    command = [sys.executable, str(script), str(photos), str(out), str(run), "--workers", "2"]
    with tempfile.TemporaryDirectory(dir="/tmp") as sockets:
        environment = {**os.environ, **variables, "RAY_TMPDIR": sockets}
        return subprocess.run(command, env=environment, capture_output=True, text=True)


def masks(folder):
    paths = sorted((folder / "masks").rglob("*.png"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_two_workers_write_the_masks_of_hrseg_predict(photos, tmp_path):
    run, whole, out = tmp_path / "run", tmp_path / "whole", tmp_path / "out"
    save_untrained(run / "checkpoints" / "best.ckpt")
    words = ["predict", photos, "--checkpoint", run, "--device", "cpu", "--out", whole]
    assert main(list(map(str, words))) == 3
    done = recipe(photos, out, run, tmp_path)
    assert done.returncode == 3, done.stderr
    assert f"{photos / 'damaged.png'} cannot be read as an image" in done.stdout
    assert "15 masks: " in done.stdout
    assert masks(out) == masks(whole) and len(masks(out)) == 15


def test_a_missing_checkpoint_is_an_error_before_the_workers_start(photos, tmp_path):
    done = recipe(photos, tmp_path / "out", tmp_path / "none.ckpt", tmp_path)
    assert done.returncode == 2
    assert "none.ckpt cannot be read" in done.stderr and "Traceback" not in done.stderr
