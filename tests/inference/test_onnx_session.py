"""Devices of ONNX Runtime. This machine needs no GPU for them."""

import pytest

from hrseg.errors import ConfigError
from hrseg.inference.onnx_session import EMPTY_MODEL, check_device, engine_cache, providers_for

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
GPU_PACKAGE = [TENSORRT, CUDA, CPU]  # onnxruntime-gpu 1.31.1: get_available_providers()


def cuda(index):
    return (CUDA, {"device_id": index, "use_tf32": 0})


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("cpu", "32", [(CPU, {})]),
        ("cuda", "32", [cuda(0)]),
        ("cuda:1", "32", [cuda(1)]),
        ("tensorrt", "32", [(TENSORRT, {"device_id": 0}), cuda(0)]),
        ("tensorrt:2", "16", [(TENSORRT, {"device_id": 2, "trt_fp16_enable": True}), cuda(2)]),
        ("tensorrt", "bf16", [(TENSORRT, {"device_id": 0, "trt_bf16_enable": True}), cuda(0)]),
    ],
)
def test_a_device_selects_its_providers_in_full_float32(device, precision, expected):
    assert providers_for(device, GPU_PACKAGE, precision) == expected


def test_tensorrt_keeps_its_engines_in_the_cache(tmp_path):
    options = dict(providers_for("tensorrt", GPU_PACKAGE, cache=tmp_path))[TENSORRT]
    assert options["trt_engine_cache_enable"] is True
    assert options["trt_engine_cache_path"] == str(tmp_path)


def test_files_of_equal_graphs_and_other_weights_have_separate_engines(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(b"graph and weights")
    second.write_bytes(b"graph and weights")
    assert engine_cache(first) == engine_cache(second)
    assert engine_cache(first).parent == tmp_path / "cache" / "hrseg" / "tensorrt"
    assert engine_cache(first).is_dir()
    second.write_bytes(b"graph and other weights")
    assert engine_cache(first) != engine_cache(second)
    monkeypatch.setenv("XDG_CACHE_HOME", str(first))
    with pytest.raises(ConfigError, match=r"engines cannot be created: .*Not a directory"):
        engine_cache(first)


@pytest.mark.parametrize("device", ["mps", "cuda:", "cuda:x", "gpu", "tensorrt-1", ""])
def test_other_devices_are_refused(device):
    with pytest.raises(ConfigError, match=r"cannot run \.onnx files"):
        providers_for(device, GPU_PACKAGE)


@pytest.mark.parametrize(
    ("device", "available", "name"),
    [
        ("cuda", [CPU], "CUDA"),
        ("tensorrt", [CUDA, CPU], "TensorRT"),
        ("tensorrt", [CPU], "TensorRT"),
    ],
)
def test_a_package_without_the_provider_is_an_error(device, available, name):
    expected = f"has no {name}: its providers are {', '.join(available)}\\.\n.*onnxruntime-gpu"
    with pytest.raises(ConfigError, match=expected):
        providers_for(device, available)


def test_the_package_of_the_cpu_is_an_error_for_cuda():
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this package has CUDA")
    check_device("cpu")
    with pytest.raises(ConfigError, match=f"no CUDA: its providers are .*{CPU}"):
        check_device("cuda")


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize(
    ("device", "fix"), [("cuda", "`nvidia-smi` lists"), ("tensorrt", r"`pip install \"tensorrt-")]
)
def test_a_provider_that_does_not_start_is_an_error_instead_of_a_prediction_on_the_cpu(
    device, fix, monkeypatch
):
    onnxruntime = pytest.importorskip("onnxruntime")
    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this package has CUDA")
    # The session of this package uses the CPU in silence, as that of onnxruntime-gpu does.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU_PACKAGE)
    with pytest.raises(ConfigError, match=f"cannot use the device {device}: .*\n(.|\n)*{fix}"):
        check_device(device)


def test_the_empty_model_is_valid_and_runs():
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    onnx.checker.check_model(onnx.load_from_string(EMPTY_MODEL))
    text = '<ir_version: 9, opset_import: ["": 18]> g (float[1] x) => (float[1] x) {}'
    assert onnx.parser.parse_model(text).SerializeToString() == EMPTY_MODEL
    session = onnxruntime.InferenceSession(EMPTY_MODEL, providers=[CPU])
    assert session.run(None, {"x": [1.5]})[0] == [1.5]
