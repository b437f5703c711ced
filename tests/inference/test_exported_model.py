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
from hrseg.inference.exported_model import Engine, open_engine, precisions
from hrseg.inference.predictor import Predictor
from hrseg.utils.memory import OutOfMemory
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
    """Return the colours of an image (B, 3, H, W) as logits of three classes."""
    return image.astype(np.float32)


def engine(run, **arguments):
    return Engine(Path("model.onnx"), metadata(**arguments), run)


def test_uint8_input_is_the_original_image_and_resized_images_are_refused():
    inputs = []
    model = engine(lambda image: inputs.append(image) or brightest(image))
    image = torch.arange(256, dtype=torch.uint8).repeat(3 * 32).view(1, 3, 32, 256)
    model.outputs(model.normalize(image))
    assert inputs[0].dtype == np.uint8 and np.array_equal(inputs[0], image.numpy())
    with pytest.raises(ConfigError, match="has uint8 input, but the protocol resizes"):
        model.outputs(F.interpolate(model.normalize(image), (48, 48), mode="bilinear"))


@pytest.mark.parametrize(
    ("arguments", "protocol", "tiles", "message"),
    [
        ({}, PROTOCOLS["official_cityscapes"], False, "scales by 0.5, 0.75"),
        ({"given": "ids"}, Protocol(flip=True), False, "returns class ids"),
        ({}, Protocol(), True, "export it with --head-resolution"),
    ],
)
def test_unsupported_protocols_and_tiles_are_refused(arguments, protocol, tiles, message):
    with pytest.raises(ConfigError, match=message):
        engine(brightest, **arguments).check(protocol, tiles)


def test_a_model_with_uint8_input_supports_flip():
    pixels = np.random.default_rng(0).permutation(32 * 40 * 3).reshape(32, 40, 3) % 251
    pixels = pixels.astype(np.uint8)
    model = engine(brightest)
    prediction = Predictor(model, model.metadata).with_protocol(flip=True).segment(pixels)
    assert np.array_equal(prediction.mask, pixels.argmax(2))


def test_a_file_on_a_gpu_exchanges_arrays_so_that_torch_needs_no_cuda():
    pixels = np.random.default_rng(0).permutation(32 * 40 * 3).reshape(32, 40, 3) % 251
    pixels = pixels.astype(np.uint8)
    model = Engine(Path("model.onnx"), metadata(), brightest, "cuda:1")
    predictor = Predictor(model, model.metadata, model.device)
    assert np.array_equal(predictor.segment(pixels).mask, pixels.argmax(2))
    assert predictor.device == "cuda:1" and "cuda:1" in repr(predictor)
    assert "ONNX Runtime, cuda:1" in repr(model)


def test_errors_of_a_runtime_name_memory_and_device():
    def fail(image):
        raise RuntimeError(message)

    model = Engine(Path("model.onnx"), metadata(), fail, "cuda")
    predictor = Predictor(model, model.metadata, "cuda")
    pixels = np.zeros((32, 40, 3), np.uint8)
    message = "EP_FAIL : cuDNN is not available."
    with pytest.raises(ConfigError, match=r"cuDNN is not available.*\n.*Fix: --device cpu"):
        predictor.segment(pixels)
    message = "Failed to allocate memory for requested buffer of size 256"
    with pytest.raises(OutOfMemory), pytest.warns(UserWarning, match="out of memory"):
        predictor.with_protocol(flip=True).segment(pixels)


@pytest.mark.parametrize(
    ("name", "device", "expected"),
    [
        ("w.xml", "cpu", ("32", "bf16")),
        ("w.onnx", "cpu", ("32",)),
        ("w.onnx", "cuda:1", ("32",)),
        ("w.onnx", "tensorrt", ("32", "bf16", "16")),
    ],
)
def test_the_precisions_of_a_file_depend_on_runtime_and_device(name, device, expected):
    assert precisions(Path(name), device) == expected


@pytest.mark.parametrize(("name", "runtime"), [("w.onnx", "ONNX Runtime"), ("w.xml", "OpenVINO")])
def test_damaged_and_missing_files_are_refused(name, runtime, tmp_path):
    pytest.importorskip({"w.onnx": "onnxruntime", "w.xml": "openvino"}[name])
    with pytest.raises(ConfigError, match=f"{name}: no such exported file"):
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
def test_onnx_files_with_references_to_other_files_are_refused(weight, message, tmp_path):
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


def test_runtimes_send_no_telemetry(tmp_path):
    for module in ("nncf", "onnxruntime", "openvino"):
        pytest.importorskip(module)
    script = (
        "import sys\n"
        "events = []\n"
        "sys.addaudithook(lambda event, a: events.append(event) if event.startswith(\n"
        "    ('socket.', 'urllib.', 'http.', 'subprocess.', 'os.fork')) else None)\n"
        "import hrseg.inference.exported_model, nncf, onnxruntime, openvino\n"
        "openvino.Core()\n"
        "assert not events, events\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    # Telemetry would store an id of the machine in the home folder.
    assert not [path for path in tmp_path.rglob("*") if re.search("icrosoft|intel", str(path))]
