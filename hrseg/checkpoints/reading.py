"""Safe reading of checkpoints (no code from the file runs), and writing of safetensors."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hrseg.checkpoints.integrity import state_of, whole_ones_beside
from hrseg.errors import ConfigError
from hrseg.utils.files import cannot_write

MAX_BYTES = 2**33  # maximum file size: ten times the largest checkpoint of a training


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU without running code from it.

    Returns:
        The object written by `torch.save`. For .safetensors: `{"state_dict": tensors, "metadata":
        strings}`, and the entry "hrseg" with the model metadata if hrseg wrote the file.

    Raises:
        ConfigError: if the path is a URL, or the file is missing, damaged, not a checkpoint, or
            contains code.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise ConfigError(
            f"{path} is a URL.\nExpected: a local file.\n"
            "Fix: download the file, check its origin, and give its path."
        )
    path = Path(path).expanduser()
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(0, "It is a pipe or a device, not a file")
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"{path.absolute()} cannot be read. {error.strerror}.\n"
            "Expected: a .pth, .ckpt or .safetensors file."
        ) from error
    if path.stat().st_size > MAX_BYTES:
        raise ConfigError(
            f"{path} has {path.stat().st_size / 2**30:.1f} GiB.\n"
            "Expected: a state dict or a checkpoint. Weights of an HRNet have less than 1 GiB.\n"
            "Fix: save only the state dict: `torch.save(model.state_dict(), path)`"
        )
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path} contains a {type(raw).__name__}.\n"
            "Expected: a state dict. Fix: `torch.save(model.state_dict(), path)`"
        )
    entries = raw.get("state_dict")
    for name, tensor in {**raw, **(entries if isinstance(entries, dict) else {})}.items():
        if isinstance(tensor, Tensor) and not _is_plain(tensor):
            raise ConfigError(
                f"{path}: {name} is stored as {tensor.layout}, {tensor.dtype}, {tensor.device}.\n"
                "Expected: a dense tensor, not quantized, with all its values in the file.\n"
                "Fix: save the original weights: `torch.save(model.state_dict(), path)`"
            )
    return raw


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors, and the model metadata as JSON unless it is empty.

    Raises:
        ConfigError: if the file cannot be written, for example on a full disk.
    """
    # Copy the tensors: the format supports neither strides nor shared memory.
    plain = torch.contiguous_format
    tensors = {name: t.detach().cpu().clone(memory_format=plain) for name, t in state.items()}
    try:
        save_file(tensors, path, {"hrseg": json.dumps(metadata)} if metadata else None)
    except SafetensorError as error:
        raise cannot_write(path, str(error)) from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
        model_metadata = {"hrseg": json.loads(metadata["hrseg"])} if "hrseg" in metadata else {}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path} is damaged or not a safetensors file: {error}.\n"
            "Expected: an intact .safetensors file. Fix: copy or download it again."
        ) from error
    return {"state_dict": state, "metadata": metadata, **model_metadata}


def _read_torch(path: Path) -> Any:
    if state_of(path) == "damaged":
        raise _damaged(path)
    # The mIoU in the authors' checkpoint.pth.tar is a numpy float.
    scalar = numpy.float64(0).__reduce__()[0]
    modules = ("numpy.core", "numpy._core")  # numpy 1, numpy 2
    allowed: list[Any] = [(scalar, f"{module}.multiarray.scalar") for module in modules]
    allowed += [numpy.dtype, numpy.dtypes.Float64DType]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise KeyError, OSError and others
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ConfigError(
                f"{path} contains more than tensors and plain data: {code[1]}.\n"
                "The file was refused, and no code from it was run.\n"
                "Expected: tensors and plain data.\n"
                "Fix: if you trust the file, save only its state dict with torch.save."
            ) from error
        raise _damaged(path) from error


def _damaged(path: Path) -> ConfigError:
    others = ", ".join(other.name for other in whole_ones_beside(path))
    return ConfigError(
        f"{path} is damaged, truncated, or not a checkpoint.\n"
        "Expected: a file written by torch.save.\n"
        "Fix: copy or download it again, and compare its size."
        + (f"\nIntact files in the same folder: {others}" if others else "")
    )


def _is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is dense, not quantized, and stores each of its values."""
    unusual = tensor.is_nested or tensor.is_quantized or tensor.is_meta
    if unusual or tensor.layout is not torch.strided:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
