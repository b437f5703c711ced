"""Inference of exported models on the CPU: `.onnx` in ONNX Runtime, `.xml` in OpenVINO."""

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
from hrseg.models.normalize import Normalize
from hrseg.utils.channels import Channels
from hrseg.utils.memory import is_out_of_memory

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


def open_engine(path: str | Path, precision: str = "32") -> "Engine":
    """Return the model of an `.onnx` or `.xml` file of `hrseg export`.

    It uses as many threads as torch. `precision` is "32", or "bf16" with OpenVINO.

    Raises:
        ConfigError: a missing, damaged or foreign file, a missing runtime, another precision.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"{path.absolute()}: no such exported file.\n"
            "Expected: an .onnx or .xml file. Fix: hrseg export --checkpoint FILE"
        )
    runtime = SUFFIXES[path.suffix.lower()]
    onnx = runtime == "ONNX Runtime"
    if precision != "32" and (onnx or precision != "bf16"):
        raise ConfigError(
            f"{path}: {runtime} has no {precision} on the CPU.\n"
            "Expected: 32, or bf16 with OpenVINO. Fix: --precision 32, or "
            "hrseg export --format openvino"
        )
    try:
        text, run = _open_onnx(path) if onnx else _open_openvino(path, precision)
    except ImportError as error:
        raise ConfigError(
            f"{path} needs {error.name}, which is not installed.\nFix: {INSTALL}"
        ) from error
    except Exception as error:  # the runtimes' own classes
        raise ConfigError(
            f"{runtime} cannot read {path}: {_reason(error)}\n"
            f"Expected: a file of `hrseg export`{'' if onnx else ', with its .bin file'}. "
            "Fix: copy or export it again."
        ) from error
    return Engine(path, _metadata(path, text), run)


class Engine(nn.Module):
    """Exported model with the interface of a Segmenter.

    Attributes:
        path: of the exported file.
        metadata: the model metadata of the file.
        interface: `input`: "uint8", "uint16" or "normalized"; `output`: "logits", "head" (logits
            at head resolution) or "ids".
        architecture: arguments of `create_model`.
        align_corners: of the interpolation of logits.
        normalize: images -> normalised images.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], run: Run) -> None:
        super().__init__()
        self.path, self.metadata, self._run = path, metadata, run
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
            out = torch.from_numpy(self._run(array.contiguous().numpy()))
        except Exception as error:  # the runtimes' own classes
            if is_out_of_memory(error):
                raise
            raise ConfigError(
                f"{self.path} does not run on an image of {width}x{height} (width x height): "
                f"{_reason(error)}\nExpected: a file of `hrseg export`. Fix: export it again."
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
        """Return the runtime, the input and the output, for `repr`."""
        runtime = SUFFIXES.get(self.path.suffix.lower(), "torch")
        return f"{runtime}, input {self.interface['input']}, output {self.interface['output']}"

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        """Return itself: it has no weights that a caller could change."""
        return self


def _open_onnx(path: Path) -> tuple[str | None, Run]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Spinning threads would occupy the cores that torch needs between two images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised as exceptions
    # InferenceSession refuses weights in files outside the folder.
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
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


def _reason(error: Exception) -> str:
    # OpenVINO's messages begin with lines about its source files.
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reasons = [line for line in lines if not line.startswith(("Exception", "Check "))] or lines
    return reasons[0].strip()[:200]
