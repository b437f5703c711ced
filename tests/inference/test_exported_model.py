import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import hrseg
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.inference.predictor import Predictor
from tests.untrained import NAMES, PALETTE

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def facts(taken="uint8", given="logits"):
    return {
        "architecture": {
            "backbone": "hrnet_w18_small_v1",
            "num_classes": 3,
            "align_corners": False,
        },
        "class_names": NAMES,
        "palette": [list(color) for color in PALETTE],
        "flip_pairs": [],
        "mean": MEAN,
        "std": STD,
        "protocol": Protocol().to_dict(),
        "export": {"input": taken, "output": given, "int8": False},
    }


def brightest(image):
    """A file that knows three classes: which colour is the strongest. (B, 3, H, W) -> the same."""
    return image.astype(np.float32)


def engine(run, path="model.onnx", **arguments):
    return Engine(hrseg.inference.exported_model.Path(path), facts(**arguments), run)


def test_a_file_of_bytes_gets_the_bytes_that_the_image_was_made_of():
    seen = []
    model = engine(lambda image: seen.append(image) or brightest(image))
    image = torch.arange(256, dtype=torch.uint8).repeat(3 * 32).view(1, 3, 32, 256)
    model.outputs(model.normalize(image))
    assert seen[0].dtype == np.uint8 and np.array_equal(seen[0], image.numpy())


def test_a_file_of_bytes_refuses_values_between_them():
    model = engine(brightest)
    image = model.normalize(torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8))
    with pytest.raises(ConfigError, match=r"takes bytes \(uint8\), but the protocol resizes"):
        model.outputs(F.interpolate(image, (48, 48), mode="bilinear"))


def test_a_normalised_file_gets_float32():
    seen = []
    model = engine(lambda image: seen.append(image) or image, taken="normalized")
    x = torch.randn(1, 3, 32, 32, dtype=torch.bfloat16)
    model.outputs(x)
    assert seen[0].dtype == np.float32 and seen[0].flags.c_contiguous


def test_ids_count_as_certain():
    model = engine(lambda image: np.ones((1, 32, 40), np.uint8), given="ids")
    out = model.outputs(model.normalize(torch.zeros(1, 3, 32, 40, dtype=torch.uint8)))["out"]
    assert out.shape == (1, 3, 32, 40) and out.dtype == torch.float32
    assert torch.equal(out.argmax(1), torch.ones(1, 32, 40, dtype=torch.long))


def test_head_resolution_is_brought_to_the_image():
    run = lambda image: brightest(image)[:, :, ::4, ::4]  # noqa: E731
    model = engine(run, given="head")
    x = model.normalize(torch.randint(0, 256, (1, 3, 33, 47), dtype=torch.uint8))
    assert model.outputs(x)["out"].shape == (1, 3, 9, 12)
    assert model(x).shape == (1, 3, 33, 47)


@pytest.mark.parametrize(
    ("arguments", "protocol", "tiles", "message"),
    [
        ({}, PROTOCOLS["official_cityscapes"], False, "scales them by 0.5, 0.75"),
        ({"given": "ids"}, Protocol(flip=True), False, "holds the argmax"),
        ({}, Protocol(), True, "Export it with --head-resolution"),
    ],
)
def test_what_a_file_cannot_do_is_refused_at_once(arguments, protocol, tiles, message):
    with pytest.raises(ConfigError, match=message):
        engine(brightest, **arguments).check(protocol, tiles)


def test_what_it_can_do_is_let_pass_and_done():
    pixels = np.random.default_rng(0).permutation(32 * 40 * 3).reshape(32, 40, 3) % 251
    pixels = pixels.astype(np.uint8)
    file = engine(brightest)
    mirrored = Predictor(file, file.metadata).with_protocol(flip=True).segment(pixels)
    assert np.array_equal(mirrored.mask, pixels.argmax(2))
    free = engine(lambda image: image, taken="normalized", given="head")
    assert free.check(PROTOCOLS["mmseg"], tiles=True) is None


def test_a_copy_is_the_file_itself():
    model = engine(brightest)
    assert hrseg.models.optimize.fold(model) is model


@pytest.mark.parametrize(("name", "runtime"), [("w.onnx", "ONNX Runtime"), ("w.xml", "OpenVINO")])
def test_damaged_missing_and_foreign_files_are_answered(name, runtime, tmp_path):
    pytest.importorskip({"w.onnx": "onnxruntime", "w.xml": "openvino"}[name])
    with pytest.raises(ConfigError, match=f"no such exported file: .*{name}"):
        open_engine(tmp_path / name)
    (tmp_path / name).write_bytes(b"<?xml version='1.0'?><net>")
    with pytest.raises(ConfigError, match=f"{runtime} cannot read .*{name}"):
        open_engine(tmp_path / name)


def test_an_onnx_file_of_others_is_answered(tmp_path):
    onnx = pytest.importorskip("onnx")
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "g", [value], [out])
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "w.onnx")
    with pytest.raises(ConfigError, match="hrseg did not export it"):
        hrseg.load(tmp_path / "w.onnx")


def test_only_suffixes_of_runtimes_are_exported_files():
    assert is_exported("a.onnx") and is_exported("b.XML")
    assert not any(is_exported(name) for name in ("a.ckpt", "a.pth", "a.safetensors", "a.pt2"))


def test_the_runtimes_are_imported_without_a_word_to_their_makers(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("openvino")
    script = (
        "import sys\n"
        "seen = []\n"
        "sys.addaudithook(lambda event, a: seen.append(event) if event.startswith(\n"
        "    ('socket.', 'urllib.', 'http.', 'subprocess.', 'os.fork')) else None)\n"
        "from hrseg.inference.exported_model import import_openvino\n"
        "import onnxruntime\n"
        "import_openvino().Core()\n"
        "assert not seen, seen\n"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # Each keeps what it has told, or its name for this machine, in the home.
    left = [path for path in tmp_path.rglob("*") if re.search("icrosoft|intel", str(path))]
    assert not left
