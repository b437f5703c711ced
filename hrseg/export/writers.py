"""Writers of export formats: ONNX, OpenVINO, torch.export, safetensors."""

import json
import logging
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from hrseg.checkpoints.reading import write_safetensors
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import INSTALL, METADATA
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import fold

Pixels = NDArray[np.uint8]

FORMATS = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "safetensors": ".safetensors",
    "torch-export": ".pt2",
}
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Form:
    """Format and interface of an exported file; `int8` is of weights and activations."""

    format: str  # a key of FORMATS
    input: str = "uint8"  # RGB (B, 3, H, W), 0..255; or "normalized": the network's, float32
    output: str = "logits"  # (B, K, H, W); or "head": a quarter of the size; "ids": (B, H, W)
    int8: bool = False

    def default_path(self, checkpoint: Path, run: Path | None) -> Path:
        """Return the default path of the file: below the run, else beside the checkpoint."""
        suffix = {"ids": "_ids", "head": "_head"}.get(self.output, "")
        suffix += "_normalized" * (self.input == "normalized") + "_int8" * self.int8
        suffix += FORMATS[self.format]
        if run is None:
            return checkpoint.with_name(f"{checkpoint.stem}{suffix}")
        return run / "exported" / f"{run.resolve().parent.name}{suffix}"

    def check(self, target: Path) -> None:
        """Raise ConfigError for options that exclude each other, or a missing package."""
        if self.int8 and self.format not in _RUNTIMES:
            fitting = " and ".join(_RUNTIMES)
            raise ConfigError(f"--int8 goes with {fitting}, not with {self.format}.")
        if self.format == "safetensors" and self != Form("safetensors"):
            raise ConfigError("safetensors holds weights: no --argmax, --normalized, ... with it.")
        if target.suffix != FORMATS[self.format]:
            raise ConfigError(
                f"--out {target}: a file of format {self.format} ends with {FORMATS[self.format]}."
            )
        runtime = _RUNTIMES.get(self.format)
        needed = ["onnx", "onnxscript", runtime] if runtime else []
        needed += ["nncf"] if self.int8 else []
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ConfigError(f"--format {self.format} needs {', '.join(missing)}: {INSTALL}")


def write(
    model: Segmenter,
    path: Path,
    form: Form,
    metadata: dict[str, Any],
    calibration: Sequence[Pixels],
) -> None:
    """Write a model and its metadata, as JSON, to a file; OpenVINO's `.bin` comes beside it."""
    if form.format == "safetensors":
        write_safetensors(path, model.state_dict(), metadata)
        return
    graph = _Graph(model, form, metadata).eval()
    text, images = json.dumps(metadata), list(calibration) if form.int8 else []
    example = torch.zeros(2, 3, 64, 96, dtype=torch.uint8 if form.input == "uint8" else None)
    # From 33: the exporter takes the single coarsest position of a side of 32 for a constant.
    height, width = (torch.export.Dim(name, min=33) for name in ("height", "width"))
    sizes = ({0: torch.export.Dim("batch"), 2: height, 3: width},)
    # The exporters' warnings are for their own authors.
    with warnings.catch_warnings(action="ignore"), ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        program = torch.export.export(graph, (example,), dynamic_shapes=sizes)
        if form.format == "torch-export":
            torch.export.save(program, path, extra_files={METADATA: text})
        elif form.format == "onnx":
            _write_onnx(program, graph, path, text, images)
        else:
            _write_openvino(program, graph, path, text, images)


class _Graph(nn.Module):
    """The computation of a file: normalisation, folded network, upsampling and argmax."""

    def __init__(self, model: Segmenter, form: Form, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.model = fold(model)
        self.form = form
        self.normalize = Normalize(metadata["mean"], metadata["std"])

    def forward(self, image: Tensor) -> Tensor:
        if self.form.input == "uint8":
            image = self._normalized(image)
        if self.form.output == "head":
            return self.model.outputs(image)["out"]
        logits: Tensor = self.model(image)
        return logits.argmax(1).to(torch.uint8) if self.form.output == "ids" else logits

    def _normalized(self, image: Tensor) -> Tensor:
        # As plain operations: the layout in memory is the runtime's choice.
        return image.float() * self.normalize.scale + self.normalize.shift

    def input_of(self, image: Pixels) -> NDArray[Any]:
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return (batch if self.form.input == "uint8" else self._normalized(batch)).numpy()


def _write_onnx(
    program: ExportedProgram, graph: _Graph, path: Path, text: str, calibration: list[Pixels]
) -> None:
    written = torch.onnx.export(
        program,
        dynamo=True,
        input_names=["image"],
        output_names=[graph.form.output],
        opset_version=18,
        verbose=False,
    )
    assert written is not None
    if not calibration:
        written.model.metadata_props[METADATA] = text
        written.save(path)
        return
    import nncf
    import onnx

    batches = nncf.Dataset(calibration, lambda image: {"image": graph.input_of(image)})
    quantized = nncf.quantize(written.model_proto, batches, subset_size=len(calibration))
    onnx.helper.set_model_props(quantized, {METADATA: text})
    onnx.save(quantized, path)


def _write_openvino(
    program: ExportedProgram, graph: _Graph, path: Path, text: str, calibration: list[Pixels]
) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        # Through ONNX: one description of the network for both runtimes.
        between = Path(folder) / "model.onnx"
        _write_onnx(program, graph, between, text, [])
        # Not convert_model, which sends telemetry.
        model = openvino.Core().read_model(between)
    if calibration:
        import nncf

        batches = nncf.Dataset(calibration, graph.input_of)
        model = nncf.quantize(model, batches, subset_size=len(calibration))
    model.set_rt_info(text, METADATA)
    openvino.save_model(model, path, compress_to_fp16=False)
