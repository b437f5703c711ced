import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hrseg
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import Engine, open_engine
from hrseg.inference.predictor import Predictor
from tests.untrained import NAMES, PALETTE

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def metadata(taken="uint8", given="logits"):
    return {
        "architecture": {"backbone": "hrnet_w18_small_v1", "num_classes": 3},
        "class_names": NAMES,
        "palette": [list(color) for color in PALETTE],
        "flip_pairs": [],
        "mean": MEAN,
        "std": STD,
        "protocol": Protocol().to_dict(),
        "export": {"input": taken, "output": given, "int8": False},
    }


def brightest(image):
    """A file of three classes, the strongest colour: (B, 3, H, W) -> the same."""
    return image.astype(np.float32)


def engine(run, **arguments):
    return Engine(Path("model.onnx"), metadata(**arguments), run)


def test_a_file_of_bytes_gets_the_bytes_of_the_image_and_refuses_values_between_them():
    seen = []
    model = engine(lambda image: seen.append(image) or brightest(image))
    image = torch.arange(256, dtype=torch.uint8).repeat(3 * 32).view(1, 3, 32, 256)
    model.outputs(model.normalize(image))
    assert seen[0].dtype == np.uint8 and np.array_equal(seen[0], image.numpy())
    with pytest.raises(ConfigError, match=r"takes bytes \(uint8\), but the protocol resizes"):
        model.outputs(F.interpolate(model.normalize(image), (48, 48), mode="bilinear"))


@pytest.mark.parametrize(
    ("arguments", "protocol", "tiles", "message"),
    [
        ({}, PROTOCOLS["official_cityscapes"], False, "scales them by 0.5, 0.75"),
        ({"given": "ids"}, Protocol(flip=True), False, "holds the argmax"),
        ({}, Protocol(), True, "Export it with --head-resolution"),
    ],
)
def test_unsupported_settings_of_a_file_are_refused_at_once(arguments, protocol, tiles, message):
    with pytest.raises(ConfigError, match=message):
        engine(brightest, **arguments).check(protocol, tiles)


def test_a_file_of_bytes_is_averaged_over_mirror_images():
    pixels = np.random.default_rng(0).permutation(32 * 40 * 3).reshape(32, 40, 3) % 251
    pixels = pixels.astype(np.uint8)
    file = engine(brightest)
    mirrored = Predictor(file, file.metadata).with_protocol(flip=True).segment(pixels)
    assert np.array_equal(mirrored.mask, pixels.argmax(2))


@pytest.mark.parametrize(("name", "runtime"), [("w.onnx", "ONNX Runtime"), ("w.xml", "OpenVINO")])
def test_damaged_and_missing_files_are_refused(name, runtime, tmp_path):
    pytest.importorskip({"w.onnx": "onnxruntime", "w.xml": "openvino"}[name])
    with pytest.raises(ConfigError, match=f"no such exported file: .*{name}"):
        open_engine(tmp_path / name)
    (tmp_path / name).write_bytes(b"<?xml version='1.0'?><net>")
    with pytest.raises(ConfigError, match=f"{runtime} cannot read .*{name}"):
        open_engine(tmp_path / name)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ("{1.0}", "hrseg did not export it"),
        ('["location": "../secret"]', "ONNX Runtime cannot read .*path"),
        ('["location": "link"]', "ONNX Runtime cannot read .*path"),
    ],
)
def test_onnx_files_of_others_are_refused_before_they_read_other_files(weight, message, tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["": 18]>'
        f"g (float[1] x) => (float[1] y) <float[1] w = {weight}> {{ y = Add(x, w) }}"
    )
    (tmp_path / "secret").write_bytes(b"1234")
    (tmp_path / "given").mkdir()
    (tmp_path / "given/link").symlink_to(tmp_path / "secret")
    onnx.save(model, tmp_path / "given/w.onnx")
    with pytest.raises(ConfigError, match=message):
        hrseg.load(tmp_path / "given/w.onnx")


def test_the_runtimes_send_no_telemetry(tmp_path):
    for module in ("nncf", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    script = (
        "import sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, a: seen.append(event) if event.startswith(\n"
        "    ('socket.', 'urllib.', 'http.', 'subprocess.', 'os.fork')) else None)\n"
        "import hrseg.inference.exported_model, nncf, onnxruntime, openvino\n"
        "openvino.Core()\n"
        "assert not seen, seen\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # They keep their records of this machine in the home.
    left = [path for path in tmp_path.rglob("*") if re.search("icrosoft|intel", str(path))]
    assert not left
