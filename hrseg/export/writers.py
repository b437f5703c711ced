"""Writers of export formats: ONNX, OpenVINO, torch.export, safetensors."""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hrseg.checkpoints.reading import write_safetensors
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import INSTALL, METADATA, import_openvino
from hrseg.models import Segmenter
from hrseg.models.optimize import fold
from hrseg.utils.registry import find

Pixels = NDArray[np.uint8]

FORMATS = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "safetensors": ".safetensors",
    "torch-export": ".pt2",
}
_NEEDS = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


@dataclass(frozen=True)
class Form:
    """What an exported file takes and gives.

    Attributes:
        format: a key of FORMATS.
        input: "uint8": RGB (B, 3, H, W), 0..255; "normalized": what the network sees, float32.
        output: "logits": (B, K, H, W); "head": logits of a quarter of the size, as the head gives
            them; "ids": uint8 (B, H, W).
        int8: weights and activations in 8 bits.
    """

    format: str
    input: str = "uint8"
    output: str = "logits"
    int8: bool = False

    def default_path(self, checkpoint: Path, run: Path | None) -> Path:
        """Return where the file goes: below the run, else beside the checkpoint."""
        said = {"ids": "_ids", "head": "_head"}.get(self.output, "")
        said += "_normalized" * (self.input == "normalized") + "_int8" * self.int8
        if run is None:
            return checkpoint.with_name(f"{checkpoint.stem}{said}{FORMATS[self.format]}")
        return run / "exported" / f"{run.resolve().parent.name}{said}{FORMATS[self.format]}"

    def check(self, target: Path) -> None:
        """Raise ConfigError for what does not go together, or is not installed."""
        find(FORMATS, self.format, "format")
        if self.int8 and self.format not in _NEEDS:
            raise ConfigError(f"--int8 goes with {' and '.join(_NEEDS)}, not with {self.format}.")
        if self.format == "safetensors" and self != Form("safetensors"):
            raise ConfigError("safetensors holds weights: no --argmax, --normalized, ... with it.")
        if target.suffix != FORMATS[self.format]:
            raise ConfigError(
                f"--out {target}: a file of format {self.format} ends with {FORMATS[self.format]}."
            )
        needed = (*_NEEDS.get(self.format, ()), *(("nncf",) if self.int8 else ()))
        missing = [name for name in needed if find_spec(name) is None]
        if missing:
            raise ConfigError(f"--format {self.format} needs {', '.join(missing)}: {INSTALL}")


def write(
    model: Segmenter,
    path: Path,
    form: Form,
    facts: dict[str, Any],
    calibration: Sequence[Pixels],
) -> None:
    """Write `model` to `path`.

    Args:
        model: the network.
        path: the file; OpenVINO's `.bin` comes beside it.
        form: what it takes and gives.
        facts: what it says of itself, as JSON.
        calibration: RGB images (H, W, 3) that int8 is fitted to.
    """
    if form.format == "safetensors":
        write_safetensors(path, model.state_dict(), facts)
        return
    graph = _Graph(model, form, facts).eval()
    with _quiet():
        if form.format == "torch-export":
            program = torch.export.export(graph, (_example(form),), dynamic_shapes=_sizes())
            torch.export.save(program, path, extra_files={METADATA: json.dumps(facts)})
        elif form.format == "onnx":
            _write_onnx(graph, path, form, facts, calibration)
        else:
            _write_openvino(graph, path, form, facts, calibration)


class _Graph(nn.Module):
    """The computation of a file: normalisation, folded network, upsampling, argmax, as asked."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: Segmenter, form: Form, facts: dict[str, Any]) -> None:
        super().__init__()
        self.model = fold(model)
        self.form = form
        # As plain operations: the layout in memory is the runtime's choice.
        scale = 1 / (255 * torch.tensor(facts["std"]).view(3, 1, 1))
        shift = -torch.tensor(facts["mean"]).view(3, 1, 1) / torch.tensor(facts["std"]).view(
            3, 1, 1
        )
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, image: Tensor) -> Tensor:
        if self.form.input == "uint8":
            image = image.float() * self.scale + self.shift
        if self.form.output == "head":
            return self.model.outputs(image)["out"]
        logits: Tensor = self.model(image)
        return logits.argmax(1).to(torch.uint8) if self.form.output == "ids" else logits


def _write_onnx(
    graph: _Graph,
    path: Path,
    form: Form,
    facts: dict[str, Any],
    calibration: Sequence[Pixels],
) -> None:
    program = torch.onnx.export(
        graph,
        (_example(form),),
        dynamo=True,
        dynamic_shapes=_sizes(),
        input_names=["image"],
        output_names=[form.output],
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    if not form.int8:
        program.model.metadata_props[METADATA] = json.dumps(facts)
        program.save(path)
        return
    import onnx

    nncf = _nncf()
    batches = nncf.Dataset(calibration, lambda image: {"image": _input(image, graph)})
    quantized = nncf.quantize(program.model_proto, batches, subset_size=len(calibration))
    onnx.helper.set_model_props(quantized, {METADATA: json.dumps(facts)})
    onnx.save(quantized, path)


def _write_openvino(
    graph: _Graph,
    path: Path,
    form: Form,
    facts: dict[str, Any],
    calibration: Sequence[Pixels],
) -> None:
    openvino = import_openvino()
    with tempfile.TemporaryDirectory() as folder:
        # Through ONNX: one description of the network for both runtimes.
        between = Path(folder) / "model.onnx"
        _write_onnx(graph, between, Form("onnx", form.input, form.output), facts, ())
        # Not convert_model, which tells its makers of every call.
        model = openvino.Core().read_model(between)
    if form.int8:
        nncf = _nncf()
        batches = nncf.Dataset(calibration, lambda image: _input(image, graph))
        model = nncf.quantize(model, batches, subset_size=len(calibration))
    model.set_rt_info(json.dumps(facts), METADATA)
    openvino.save_model(model, path, compress_to_fp16=False)


def _nncf() -> Any:
    """Return NNCF, kept from telling its makers of every call."""
    os.environ.setdefault("NNCF_CI", "1")
    if find_spec("openvino") is not None:
        import_openvino()  # which NNCF imports
    import nncf

    return nncf


def _example(form: Form) -> Tensor:
    return torch.zeros(2, 3, 64, 96, dtype=torch.uint8 if form.input == "uint8" else torch.float32)


def _sizes() -> tuple[dict[int, Any], ...]:
    """Return which sizes of the input are open: batch, height and width."""
    # From 33: the exporter takes the single coarsest position of a side of 32 for a constant.
    height, width = (torch.export.Dim(name, min=33) for name in ("height", "width"))
    return ({0: torch.export.Dim("batch"), 2: height, 3: width},)


@torch.no_grad()
def _input(image: Pixels, graph: _Graph) -> NDArray[Any]:
    """Return an image (H, W, 3) as the file takes it."""
    batch = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
    if graph.form.input == "normalized":
        batch = batch.float() * graph.scale + graph.shift
    return np.asarray(batch.numpy())


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporters say to their own authors off the screen."""
    names = ("torch.onnx", "torch.export", "nncf", "onnxscript", "onnx_ir")
    levels = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
