"""Exported model in place of a network: ONNX Runtime or OpenVINO on the CPU.

`.onnx` runs in ONNX Runtime, `.xml` (with its `.bin`) in OpenVINO, both on the CPU.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from hrseg.checkpoints.metadata import read_metadata
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, VerificationError
from hrseg.models.normalize import Normalize
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.registry import find

# What runs other graphs, as often as it likes; no network of hrseg has one.
LOOPS = ("Loop", "Scan", "SequenceMap", "TensorIterator", "If")


def check_onnx(path: Path) -> None:
    """Refuse a graph that keeps its weights elsewhere, or that may never end.

    Raises:
        ConfigError: this, or no ONNX file.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own, which derives from Exception alone
        raise _unreadable(path, "invalid ONNX file") from error
    graphs = [model.graph, *model.functions]
    for node in (node for graph in graphs for node in graph.node):
        if node.op_type in LOOPS:
            raise _refusal(path, f"holds an operator {node.op_type}")
        for attribute in node.attribute:
            _check_tensors(path, [attribute.t, *attribute.tensors])
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise _refusal(path, "holds sparse weights")
    _check_tensors(path, model.graph.initializer)
    if model.graph.sparse_initializer:
        raise _refusal(path, "holds sparse weights")


def _check_tensors(path: Path, tensors: Any) -> None:
    from onnx import TensorProto

    for tensor in tensors:
        if tensor.data_location == TensorProto.EXTERNAL:
            where = next((e.value for e in tensor.external_data if e.key == "location"), "")
            raise _refusal(path, f"keeps weights in another file, {where!r}")


def check_openvino(path: Path) -> None:
    """Refuse a file that is no network of OpenVINO, or one that may never end.

    Raises:
        ConfigError: this.
    """
    for name, attributes in _elements(path):
        if name == "layer" and attributes.get("type") in LOOPS:
            raise _refusal(path, f"holds a layer {attributes['type']}")


def _elements(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the elements of an XML file; another file, or a DOCTYPE, is refused."""
    found: list[tuple[str, dict[str, str]]] = []

    def refuse_doctype(*_: Any) -> None:
        raise _refusal(path, "declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: found.append((name, attributes))
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        with path.open("rb") as file:
            while data := file.read(2**20):
                parser.Parse(data, False)
                yield from found
                found.clear()
            parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise _unreadable(path, f"invalid XML file, {error}") from error


def _refusal(path: Path, what: str) -> ConfigError:
    """Return the error for a file that hrseg did not write so."""
    return ConfigError(
        f"{path} {what}: hrseg writes no such file, and does not run one.\n"
        "Copy the file again, or export the checkpoint anew: hrseg export."
    )


# ONNX Runtime, once imported, tells its makers of every session and keeps a data base for that.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Array = NDArray[Any]
Run = Callable[[Array], Array]
METADATA = "hrseg"  # the entry of a file with its model metadata as JSON
SUFFIXES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}
INSTALL = 'pip install "hrseg[export]"'


def is_exported(path: str | Path) -> bool:
    """Tell by its suffix whether a file is one that an `Engine` runs."""
    return Path(path).suffix.lower() in SUFFIXES


def open_engine(path: str | Path, threads: int | None = None, precision: str = "32") -> "Engine":
    """Open a file that `hrseg export` wrote.

    Args:
        path: an `.onnx` or `.xml` file.
        threads: of the runtime; None: as many as torch takes.
        precision: "32"; "bf16" for OpenVINO alone.

    Raises:
        ConfigError: no such file, a damaged or foreign one, a runtime that is not installed, or a
            precision that it does not have.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise ConfigError(f"no such exported file: {path.absolute()}")
    find({"32": None, "bf16": None}, precision, "precision of an exported file")
    opener = _open_onnx if path.suffix.lower() == ".onnx" else _open_openvino
    metadata, run = opener(path, threads or torch.get_num_threads(), precision)
    return Engine(path, metadata, run)


class Engine(nn.Module):
    """An exported file in place of a Segmenter, wherever one is evaluated.

    Attributes:
        path: the file.
        facts: the metadata of the file, with the file's interface as `export`.
        architecture: of the network that was exported.
        align_corners: its rule of interpolation.
    """

    def __init__(self, path: Path, metadata: dict[str, Any], run: Run) -> None:
        """Take the metadata of a file, and the function that runs it; see `open_engine`."""
        super().__init__()
        self.path, self.facts, self._run = path, metadata, run
        self.architecture: dict[str, Any] = metadata["architecture"]
        self.align_corners = bool(self.architecture.get("align_corners", False))
        self.kind: dict[str, Any] = metadata["export"]
        self.normalize = Normalize(metadata["mean"], metadata["std"])

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return `{"out": logits}` of a normalised image (B, 3, H, W), as a Segmenter does.

        (B, K, H, W), or at head resolution; a file of ids gives 1 for the class and 0 for others.

        Raises:
            ConfigError: the file takes bytes, and the image has values between them; or it does
                not run on the image.
            VerificationError: it does not give what it says.
        """
        array = self._bytes(image) if self.kind["input"] == "uint8" else image.float()
        classes = int(self.architecture["num_classes"])
        out = torch.from_numpy(self._answer(array.contiguous().numpy()))
        if self.kind["output"] == "ids" and out.ndim == 3 and 0 <= int(out.max()) < classes:
            return {"out": F.one_hot(out.long(), classes).permute(0, 3, 1, 2).float()}
        if out.ndim != 4 or out.shape[:2] != (len(image), classes):
            size = tuple(image.shape[-2:])
            raise VerificationError(
                f"{self.path} gives {tuple(out.shape)} for an image of {size}, "
                f"expected {(len(image), classes, *size)}.\nIt does not do what it says: export it "
                "anew."
            )
        return {"out": out}

    def _answer(self, array: Array) -> Array:
        try:
            return self._run(array)
        except Exception as error:  # the runtimes' own, which derive from Exception alone
            if is_out_of_memory(error):
                raise  # it may do with less at once
            height, width = array.shape[-2:]
            raise ConfigError(
                f"{self.path} does not run on an image of {height}x{width}: {_reason(error)}\n"
                "Expected a file of `hrseg export`. Export it anew."
            ) from error

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of a normalised image (B, 3, H, W)."""
        logits = self.outputs(image)["out"]
        if logits.shape[-2:] == image.shape[-2:]:
            return logits
        size = image.shape[-2:]
        return F.interpolate(logits, size, mode="bilinear", align_corners=self.align_corners)

    def check(self, protocol: Protocol, tiles: bool = False) -> None:
        """Refuse what this file cannot do before anything is run.

        Args:
            protocol: how images are to be evaluated.
            tiles: whether images larger than memory are among them.

        Raises:
            ConfigError: it takes an image scaled between bytes, or scores that a file of ids lacks.
        """
        if self.kind["input"] == "uint8" and protocol.scales != (1.0,):
            raise ConfigError(
                f"{self.path} takes bytes (uint8) and so images as they are; the protocol "
                f"{protocol.name} scales them by {', '.join(f'{s:g}' for s in protocol.scales)}.\n"
                'Say "inference.scales=[1.0]", or export it with --normalized.'
            )
        if self.kind["output"] == "ids" and (protocol.flip or len(protocol.scales) > 1):
            raise ConfigError(
                f"{self.path} holds the argmax, which cannot be averaged over mirror images or "
                "scales.\nSay inference.flip=false, or export it without --argmax."
            )
        if tiles and self.kind["output"] != "head":
            raise ConfigError(
                f"{self.path} gives {self.kind['output']} at the size of the image; tiles of large "
                "images are blended at head resolution.\nExport it with --head-resolution."
            )

    def _bytes(self, image: Tensor) -> Tensor:
        """Return the uint8 image that a normalised one was made of."""
        values = (image - self.normalize.shift) / self.normalize.scale
        rounded = values.round()
        if not ((values - rounded).abs() < 0.05).all():
            raise ConfigError(
                f"{self.path} takes bytes (uint8), but the protocol resizes this image.\n"
                "Say inference.base_size=0, or export it with --normalized."
            )
        return rounded.clamp(0, 255).to(torch.uint8)

    def extra_repr(self) -> str:
        """Say what it takes and gives."""
        runtime = SUFFIXES.get(self.path.suffix.lower(), "torch")
        return ", ".join([runtime, *(f"{key} {self.kind[key]}" for key in ("input", "output"))])

    def __deepcopy__(self, memo: dict[int, Any]) -> "Engine":
        """Return itself: there are no weights to fold or change."""
        return self


def _open_onnx(path: Path, threads: int, precision: str) -> tuple[dict[str, Any], Run]:
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        raise ConfigError(f"{path} needs onnx and onnxruntime: {INSTALL}") from error
    if precision != "32":
        raise ConfigError(
            f"{path}: ONNX Runtime has no {precision} on the CPU; expected precision 32.\n"
            "OpenVINO has it: hrseg export --format openvino."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # A thread that waits by spinning takes the core from torch between two images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # an error comes as an exception; names in it are printable
    check_onnx(path)
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own classes, which all derive from Exception alone
        raise _unreadable(path, _reason(error)) from error
    metadata = _metadata(path, session.get_modelmeta().custom_metadata_map.get(METADATA))
    return metadata, lambda image: np.asarray(session.run(None, {"image": image})[0])


def _open_openvino(path: Path, threads: int, precision: str) -> tuple[dict[str, Any], Run]:
    try:
        core = import_openvino().Core()
    except ImportError as error:
        raise ConfigError(f"{path} needs openvino: {INSTALL}") from error
    check_openvino(path)
    # Without the hint it chooses bf16 by itself where the processor has it.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "32" else "bf16",
        "INFERENCE_NUM_THREADS": threads,
    }
    try:
        model = core.read_model(path)
        text = model.get_rt_info(METADATA).astype(str) if model.has_rt_info(METADATA) else None
        compiled = core.compile_model(model, "CPU", settings)
    except Exception as error:  # RuntimeError mostly
        raise _unreadable(path, _reason(error)) from error
    return _metadata(path, text), lambda image: np.array(compiled([image])[0])


def import_openvino() -> Any:
    """Return the package, imported without a word to its makers over the network."""
    name = "openvino_telemetry"
    before = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]  # not to be found: a stub takes its place
    try:
        import openvino
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before
    return openvino


def _metadata(path: Path, text: str | None) -> dict[str, Any]:
    """Return the validated metadata of a file."""
    try:
        data = json.loads(text or "")
    except (ValueError, RecursionError) as error:
        raise _foreign(path) from error
    metadata = read_metadata(data, path)
    if metadata.export is None:
        raise _foreign(path)
    return metadata.to_dict()


def _foreign(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} has no metadata of an exported file: hrseg did not export it.\n"
        "Expected a file of `hrseg export`, which carries classes, colours and protocol."
    )


def _unreadable(path: Path, reason: str) -> ConfigError:
    beside = " and its .bin file" if path.suffix.lower() == ".xml" else ""
    return ConfigError(
        f"{SUFFIXES[path.suffix.lower()]} cannot read {path}: {reason}\n"
        f"Copy the file{beside} again, or export it anew: hrseg export."
    )


def _reason(error: Exception) -> str:
    # OpenVINO first says where in its sources.
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = [line for line in lines if not line.startswith(("Exception", "Check "))] or lines
    return said[0].strip()[:200]
