"""Sessions of ONNX Runtime on the CPU, with CUDA and with TensorRT."""

import contextlib
import hashlib
import importlib
import io
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from hrseg.errors import ConfigError
from hrseg.utils.console import echo
from hrseg.utils.text import reason

Providers = list[tuple[str, dict[str, Any]]]
DEVICES = "cpu, cuda, cuda:1, tensorrt or tensorrt:1"
CUDA_PACKAGE = 'pip install "onnxruntime-gpu[cuda,cudnn]"'
TENSORRT_PACKAGE = 'pip install "tensorrt-cu13<11"'  # onnxruntime-gpu 1.31 loads libnvinfer.so.10
PRECISIONS: dict[str, dict[str, Any]] = {  # of TensorRT, with its options
    "32": {},
    "bf16": {"trt_bf16_enable": True},
    "16": {"trt_fp16_enable": True},
}
_NAMES = {"cuda": "CUDA", "tensorrt": "TensorRT"}
_CPU, _CUDA, _TENSORRT = (f"{name}ExecutionProvider" for name in ("CPU", "CUDA", "Tensorrt"))
# ONNX model without nodes, which starts at once: its input is its output.
EMPTY_MODEL = (
    b"\x08\t:%\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01"
    b"b\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x12"
)


def open_session(path: Path, device: str = "cpu", precision: str = "32") -> Any:
    """Return the `onnxruntime.InferenceSession` of an `.onnx` file.

    Args:
        path: of the file.
        device: one of DEVICES; the CPU uses as many threads as torch.
        precision: "32", or with TensorRT "bf16" or "16".

    Raises:
        ConfigError: as for `check_device`. ONNX Runtime has classes of its own for invalid files.
    """
    import onnxruntime

    tensorrt = device.startswith("tensorrt")
    if tensorrt and precision == "32":
        # ONNX Runtime has no option for TensorRT's TF32. The libraries read this when they start.
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    check_device(device)
    cache = engine_cache(path) if tensorrt else None
    if tensorrt:
        echo(f"TensorRT builds engines at the first images, which takes minutes; cache: {cache}")
    available = onnxruntime.get_available_providers()
    return _session(path, providers_for(device, available, precision, cache))


def check_device(device: str) -> None:
    """Start ONNX Runtime on a device with an empty model.

    Raises:
        ConfigError: an unknown device, a package without its provider, or a provider that does
            not start, because a library, the driver or the GPU is missing. ONNX Runtime itself
            would use the CPU instead.
    """
    import onnxruntime

    providers = providers_for(device, onnxruntime.get_available_providers())
    if device == "cpu":
        return
    onnxruntime.set_default_logger_severity(4)  # the error below contains the cause
    missing, started = _load_libraries(), []
    cause = missing or "its provider did not start, as without an NVIDIA driver"
    try:
        started = _session(EMPTY_MODEL, providers).get_providers()
    except RuntimeError as error:
        cause = missing or reason(error)
    if not {name for name, _ in providers} <= set(started):
        tensorrt = device.startswith("tensorrt")
        fix = f"`{CUDA_PACKAGE}`" if missing else "`nvidia-smi` lists driver and GPUs"
        raise ConfigError(
            f"ONNX Runtime cannot use the device {device}: {cause.rstrip('.')}.\n"
            "Expected: an NVIDIA GPU with its driver, and the libraries of "
            f"{'CUDA and TensorRT' if tensorrt else 'CUDA'}.\n"
            f"Fix: {fix}{f'; `{TENSORRT_PACKAGE}`' if tensorrt else ''}; or --device cpu"
        )


def providers_for(
    device: str, available: Collection[str], precision: str = "32", cache: Path | None = None
) -> Providers:
    """Return the execution providers of a device with their options, the preferred one first.

    TensorRT leaves the operations that it does not support to CUDA.

    Args:
        device: one of DEVICES.
        available: the providers of the installed package.
        precision: a key of PRECISIONS, for TensorRT.
        cache: folder of TensorRT's engines; None: no cache.

    Raises:
        ConfigError: an unknown device, or a package without the provider.
    """
    match = re.fullmatch(r"cpu|(cuda|tensorrt)(?::(\d+))?", device)
    if match is None:
        raise ConfigError(
            f"The device {device!r} cannot run .onnx files.\nExpected: {DEVICES}. Fix: --device cpu"
        )
    kind, index = match[1], int(match[2] or 0)
    if kind is None:
        return [(_CPU, {})]
    # Otherwise recent GPUs round the inputs of float32 convolutions to 10 bits.
    providers: Providers = [(_CUDA, {"device_id": index, "use_tf32": 0})]
    if kind == "tensorrt":
        options = {"device_id": index, **PRECISIONS[precision]}
        if cache is not None:
            options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache)}
        providers.insert(0, (_TENSORRT, options))
    if not {name for name, _ in providers} <= set(available):
        raise ConfigError(
            f"ONNX Runtime here has no {_NAMES[kind]}: its providers are {', '.join(available)}.\n"
            "Expected: the package onnxruntime-gpu instead of onnxruntime.\n"
            f"Fix: `pip uninstall onnxruntime onnxruntime-gpu`, then `{CUDA_PACKAGE}`; "
            "or --device cpu"
        )
    return providers


def engine_cache(path: Path) -> Path:
    """Create and return the folder of TensorRT's engines for an `.onnx` file.

    ONNX Runtime names engines by the graph without its weights. Therefore the folder is named by
    the content of the file. It is not beside the file, because engines contain code.

    Returns:
        A folder in `$XDG_CACHE_HOME/hrseg/tensorrt`, by default in `~/.cache/hrseg/tensorrt`.

    Raises:
        ConfigError: the folder cannot be created.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = root / "hrseg" / "tensorrt" / digest[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"The cache of TensorRT's engines cannot be created: {error}.\n"
            "Expected: a writable folder. Fix: XDG_CACHE_HOME=/path"
        ) from error
    return folder


def _session(model: Path | bytes, providers: Providers) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning threads would occupy the cores that torch needs between two images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised as exceptions
    # InferenceSession refuses weights in files outside the folder.
    return onnxruntime.InferenceSession(model, options, providers, enable_fallback=0)


def _load_libraries() -> str:
    """Load the libraries of CUDA, cuDNN and TensorRT from their Python packages.

    Returns:
        The first missing library of CUDA with its reason, or "".
    """
    import onnxruntime

    with contextlib.suppress(ImportError, OSError):
        importlib.import_module("tensorrt")  # loads its libraries
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        onnxruntime.preload_dlls()
    lines = output.getvalue().splitlines()
    return next((line for line in lines if line.startswith("Failed to load")), "")
