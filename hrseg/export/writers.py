"""Writers of the export formats ONNX, OpenVINO, torch.export and safetensors."""

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
from hrseg.inference.onnx_session import check_device
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import fold
from hrseg.utils.channels import Channels, Pixels

FORMATS = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "safetensors": ".safetensors",
    "torch-export": ".pt2",
}
_RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Form:
    """Format and interface of an exported file.

    Attributes:
        format: a key of FORMATS.
        input: images (B, N, H, W), as "uint8" in 0..255, "uint16", or "normalized" in float32.
        output: "logits" (B, K, H, W), "head" (logits at a quarter of the size) or "ids" (B, H, W).
        int8: whether weights and activations are quantised.
    """

    format: str
    input: str = "uint8"
    output: str = "logits"
    int8: bool = False

    def default_path(self, checkpoint: Path, run: Path | None) -> Path:
        """Return the default path: in the run folder, or without one, next to the checkpoint."""
        suffix = {"ids": "_ids", "head": "_head"}.get(self.output, "")
        suffix += "_normalized" * (self.input == "normalized") + "_int8" * self.int8
        suffix += FORMATS[self.format]
        if run is None:
            return checkpoint.with_name(f"{checkpoint.stem}{suffix}")
        return run / "exported" / f"{run.resolve().parent.name}{suffix}"

    def check(self, target: Path, device: str = "cpu") -> None:
        """Check the options, the suffix of the file, the packages and the device.

        Raises:
            ConfigError: conflicting options, a wrong suffix, a missing package, or a device for
                the verification that ONNX Runtime cannot use.
        """
        if device != "cpu" and self.format != "onnx":
            raise ConfigError(
                f"--device {device} is not supported by the format {self.format}, which is "
                "verified on the CPU.\nExpected: onnx. Fix: leave out --device"
            )
        if self.int8 and self.format not in _RUNTIMES:
            raise ConfigError(
                f"--int8 is not supported by the format {self.format}.\n"
                f"Expected: {' or '.join(_RUNTIMES)}. Fix: --format onnx"
            )
        if self.format == "safetensors" and self != Form("safetensors"):
            raise ConfigError(
                "safetensors files contain only weights.\n"
                "Expected: --format safetensors without --argmax, --head-resolution, --normalized."
            )
        if target.suffix != FORMATS[self.format]:
            raise ConfigError(
                f"--out {target} has a wrong suffix for the format {self.format}.\n"
                f"Expected: a path that ends with {FORMATS[self.format]}."
            )
        runtime = _RUNTIMES.get(self.format)
        packages = ["onnx", "onnxscript", runtime] if runtime else []
        packages += ["nncf"] if self.int8 else []
        missing = [name for name in packages if find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"--format {self.format} needs {', '.join(missing)}.\nFix: `{INSTALL}`"
            )
        if device != "cpu":
            check_device(device)


def write(
    model: Segmenter,
    path: Path,
    form: Form,
    metadata: dict[str, Any],
    calibration: Sequence[Pixels],
) -> None:
    """Write a model and its metadata (as JSON) to a file.

    OpenVINO also writes a `.bin` file with the weights in the same folder.
    """
    if form.format == "safetensors":
        write_safetensors(path, model.state_dict(), metadata)
        return
    graph = _Graph(model, form, metadata).eval()
    text, images = json.dumps(metadata), list(calibration) if form.int8 else []
    dtype = None if form.input == "normalized" else getattr(torch, form.input)
    example = torch.zeros(2, len(metadata["mean"]), 64, 96, dtype=dtype)
    # At least 33: at 32 the coarsest stream has size 1, which the exporter specialises.
    height, width = (torch.export.Dim(name, min=33) for name in ("height", "width"))
    sizes = ({0: torch.export.Dim("batch"), 2: height, 3: width},)
    # The exporters' warnings concern their developers, not the user.
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
    """Exported computation: normalisation, folded network, upsampling and argmax."""

    def __init__(self, model: Segmenter, form: Form, metadata: dict[str, Any]) -> None:
        super().__init__()
        self.model = fold(model)
        self.form = form
        channels = Channels.from_dict(metadata.get("channels"))
        self.normalize = Normalize(metadata["mean"], metadata["std"], channels)

    def forward(self, image: Tensor) -> Tensor:
        if self.form.input != "normalized":
            image = self._normalized(image)
        if self.form.output == "head":
            return self.model.outputs(image)["out"]
        logits: Tensor = self.model(image)
        return logits.argmax(1).to(torch.uint8) if self.form.output == "ids" else logits

    def _normalized(self, image: Tensor) -> Tensor:
        # Plain operations leave the memory layout to the runtime.
        normalize = self.normalize
        values = image.float() * normalize.scale + normalize.shift
        return values.clamp(normalize.lowest, normalize.highest) if normalize.channels else values

    def input_of(self, image: Pixels) -> NDArray[Any]:
        batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        return (self._normalized(batch) if self.form.input == "normalized" else batch).numpy()


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
        # Convert through ONNX, so that both runtimes use the same graph.
        onnx_file = Path(folder) / "model.onnx"
        _write_onnx(program, graph, onnx_file, text, [])
        # openvino.convert_model would send telemetry.
        model = openvino.Core().read_model(onnx_file)
    if calibration:
        import nncf

        batches = nncf.Dataset(calibration, graph.input_of)
        model = nncf.quantize(model, batches, subset_size=len(calibration))
    model.set_rt_info(text, METADATA)
    openvino.save_model(model, path, compress_to_fp16=False)
