"""Inference of exported models: `.onnx` in ONNX Runtime, `.xml` in OpenVINO on the CPU."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrseg.checkpoints.metadata import read_metadata
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, VerificationError
from hrseg.inference import onnx_session
from hrseg.models.normalize import Normalize
from hrseg.utils.channels import Channels
from hrseg.utils.memory import OutOfMemory, is_out_of_memory
from hrseg.utils.text import reason

# Turns off the telemetry of ONNX Runtime, OpenVINO and NNCF.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # cannot be imported

Array = NDArray[Any]
Run = Callable[[Array], Array]
METADATA = "hrseg"  # entry of a file that contains its model metadata as JSON
SUFFIXES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}
INSTALL = 'pip install "hrseg[export]"'


def is_exported(path: str | Path) -> bool:
    """Return whether a file has the suffix of an exported model."""
    return Path(path).suffix.lower() in SUFFIXES


def precisions(path: Path, device: str = "cpu") -> tuple[str, ...]:
    """Return the precisions in which an exported file can run on a device."""
    if SUFFIXES[path.suffix.lower()] == "OpenVINO":
        return ("32", "bf16")
    return tuple(onnx_session.PRECISIONS) if device.startswith("tensorrt") else ("32",)


def open_engine(path: str | Path, device: str = "cpu", precision: str = "32") -> "Engine":
    """Return the model of an `.onnx` or `.xml` file of `hrseg export`.

    Args:
        path: of the file.
        device: "cpu" with as many threads as torch, or for `.onnx` one of `onnx_session.DEVICES`.
        precision: one of `precisions`.

    Raises:
        ConfigError: a missing, damaged or foreign file, a missing runtime, a device that the
            runtime cannot use, another precision.
        OutOfMemory: the model does not fit into the memory of the device.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{path.absolute()}: no such exported file.\n"
            "Expected: an .onnx or .xml file. Fix: hrseg export --checkpoint FILE"
        )
    runtime = SUFFIXES[path.suffix.lower()]
    onnx = runtime == "ONNX Runtime"
    if not onnx and device != "cpu":
        raise ConfigError(
            f"{path} is an OpenVINO file, which runs only on the CPU, not on {device!r}.\n"
            "Expected: device cpu, or an .onnx file. Fix: leave out --device"
        )
    if precision not in precisions(path, device):
        raise ConfigError(
            f"{path}: {runtime} has no {precision} on the device {device}.\n"
            "Expected: 32, or bf16 with OpenVINO, or bf16 or 16 with --device tensorrt.\n"
            "Fix: --precision 32"
        )
    try:
        text, run = _open_onnx(path, device, precision) if onnx else _open_openvino(path, precision)
    except ImportError as error:
        raise ConfigError(
            f"{path} needs {error.name}, which is not installed.\nFix: {INSTALL}"
        ) from error
    except ConfigError:
        raise
    except Exception as error:  # the runtimes' own classes
        if is_out_of_memory(error):
            raise OutOfMemory(
                f"out of memory: {path} does not fit into the memory of the device {device}.\n"
                "Fix: a device with more memory, or a smaller model."
            ) from error
        raise ConfigError(
            f"{runtime} cannot read {path}: {reason(error)}\n"
            f"Expected: a file of `hrseg export`{'' if onnx else ', with its .bin file'}. "
            "Fix: copy or export it again."
        ) from error
    return Engine(path, _metadata(path, text), run, device)


class Engine(nn.Module):
    """Exported model with the interface of a Segmenter.

    Attributes:
        path: of the exported file.
        metadata: the model metadata of the file.
        device: of the runtime. Inputs and outputs are tensors on any device of torch.
        interface: `input`: "uint8", "uint16" or "normalized"; `output`: "logits", "head" (logits
            at head resolution) or "ids".
        architecture: arguments of `create_model`.
        align_corners: of the interpolation of logits.
        normalize: images -> normalised images.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], run: Run, device: str = "cpu") -> None:
        super().__init__()
        self.path, self.metadata, self._run, self.device = path, metadata, run, device
        self.interface: dict[str, Any] = metadata["export"]
        self.architecture: dict[str, Any] = metadata["architecture"]
        self.align_corners = bool(self.architecture.get("align_corners", False))
        channels = Channels.from_dict(metadata.get("channels"))
        self.normalize = Normalize(metadata["mean"], metadata["std"], channels)

    @property
    def has_raw_input(self) -> bool:
        """Whether the file normalises the images itself."""
        return bool(self.interface["input"] != "normalized")

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return `{"out": logits}` of a normalised image (B, N, H, W), as a Segmenter does.

        Logits are (B, K, H, W), or (B, K, h, w) at head resolution. Ids become one-hot logits.

        Raises:
            ConfigError: the runtime fails on the image.
            VerificationError: the shape of the output contradicts the metadata.
        """
        array = self._bytes(image) if self.has_raw_input else image.float()
        classes, (height, width) = int(self.architecture["num_classes"]), image.shape[-2:]
        try:
            out = torch.from_numpy(self._run(array.contiguous().cpu().numpy())).to(image.device)
        except Exception as error:  # the runtimes' own classes
            if is_out_of_memory(error):
                raise
            fix = "export it again." if self.device == "cpu" else "--device cpu"
            raise ConfigError(
                f"{self.path} does not run on an image of {width}x{height} (width x height): "
                f"{reason(error)}\nExpected: a file of `hrseg export`. Fix: {fix}"
            ) from error
        if self.interface["output"] == "ids" and out.ndim == 3 and 0 <= int(out.max()) < classes:
            return {"out": F.one_hot(out.long(), classes).permute(0, 3, 1, 2).float()}
        if out.ndim != 4 or out.shape[:2] != (len(image), classes):
            raise VerificationError(
                f"{self.path} returned an output of shape {tuple(out.shape)}, which contradicts "
                f"its metadata.\nExpected: {(len(image), classes, height, width)}, or the same at "
                "head resolution. Fix: export it again."
            )
        return {"out": out}

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of a normalised image (B, 3, H, W)."""
        return self.upsample(self.outputs(image)["out"], image.shape[-2:])

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate logits at head resolution (B, K, h, w) bilinearly to `size`."""
        if logits.shape[-2:] == tuple(size):
            return logits
        return F.interpolate(logits, tuple(size), mode="bilinear", align_corners=self.align_corners)

    def check(self, protocol: Protocol, tiles: bool = False, confidence: bool = False) -> None:
        """Raise ConfigError if this file does not support a protocol, tiles, or confidence."""
        kind = self.interface["input"]
        if self.has_raw_input and protocol.scales != (1.0,):
            raise ConfigError(
                f"{self.path} has {kind} input, which cannot be scaled; the protocol "
                f"{protocol.name} scales by {', '.join(f'{s:g}' for s in protocol.scales)}.\n"
                'Expected: scale 1. Fix: "inference.scales=[1.0]", or export it with --normalized.'
            )
        output = self.interface["output"]
        if output == "ids" and (protocol.flip or len(protocol.scales) > 1):
            raise ConfigError(
                f"{self.path} returns class ids, which cannot be averaged over mirror images or "
                "scales.\nExpected: one scale without flip. Fix: inference.flip=false, or export "
                "it without --argmax."
            )
        if output == "ids" and (confidence or protocol.threshold is not None):
            raise ConfigError(
                f"{self.path} returns class ids without probabilities, which a threshold, "
                "the confidence and pseudo-labels need.\n"
                "Expected: logits. Fix: export it without --argmax."
            )
        if tiles and output != "head":
            raise ConfigError(
                f"{self.path} returns {output} at the size of the image; tiles of large images "
                "are blended at head resolution.\n"
                "Expected: logits at head resolution. Fix: export it with --head-resolution."
            )

    def _bytes(self, image: Tensor) -> Tensor:
        """Return the integers (B, N, H, W) of a normalised image: the inverse of `normalize`."""
        kind, dtype = self.interface["input"], self.normalize.dtype
        values = (image - self.normalize.shift) / self.normalize.scale
        rounded = values.round()
        whole = (values - rounded).abs() < 0.05
        if self.normalize.channels:  # the ends of a value range need not be integers
            low, high = image <= self.normalize.lowest, image >= self.normalize.highest
            rounded = torch.where(low, values.floor(), torch.where(high, values.ceil(), rounded))
            whole |= low | high
        if not whole.all():
            raise ConfigError(
                f"{self.path} has {kind} input, but the protocol resizes this image.\n"
                "Expected: images of their own size. Fix: inference.base_size=0, or export it "
                "with --normalized."
            )
        return rounded.clamp(0, 255 if dtype == torch.uint8 else 65535).to(dtype)

    def extra_repr(self) -> str:
        """Return the runtime, the device, the input and the output, for `repr`."""
        runtime = SUFFIXES.get(self.path.suffix.lower(), "torch")
        interface = f"input {self.interface['input']}, output {self.interface['output']}"
        return f"{runtime}, {self.device}, {interface}"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        """Return itself: it has no weights that a caller could change."""
        return self


def _open_onnx(path: Path, device: str, precision: str) -> tuple[str | None, Run]:
    session = onnx_session.open_session(path, device, precision)
    text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    return text, lambda image: np.asarray(session.run(None, {"image": image})[0])


def _open_openvino(path: Path, precision: str) -> tuple[str | None, Run]:
    import openvino

    # Without the hint OpenVINO uses bf16 if the processor supports it.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "32" else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    core = openvino.Core()
    model = core.read_model(path)
    text = model.get_rt_info(METADATA).astype(str) if model.has_rt_info(METADATA) else None
    compiled = core.compile_model(model, "CPU", settings)
    return text, lambda image: np.array(compiled([image])[0])


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    try:
        metadata = read_metadata(json.loads(text or ""), path)
    except (ValueError, RecursionError):
        metadata = None
    if metadata is None or metadata.export is None:
        raise ConfigError(
            f"{path} has no metadata of an exported file: hrseg did not export it.\n"
            "Expected: a file with classes, colours and protocol. Fix: hrseg export"
        )
    return metadata.to_dict()
