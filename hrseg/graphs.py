"""What an exported file of others asks a runtime to do, looked at before the runtime does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.parsers import expat

from hrseg.errors import ConfigError

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
        raise _unreadable(path, "ONNX Runtime", "it is no ONNX file") from error
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
        raise _unreadable(path, "OpenVINO", f"it is no XML file, {error}") from error


def _unreadable(path: Path, runtime: str, reason: str) -> ConfigError:
    return ConfigError(
        f"{runtime} cannot read {path}: {reason}\n"
        "Copy the file again, or export the checkpoint anew: hrseg export."
    )


def _refusal(path: Path, what: str) -> ConfigError:
    """Return the error for a file that hrseg did not write so."""
    return ConfigError(
        f"{path} {what}: hrseg writes no such file, and does not run one.\n"
        "Copy the file again, or export the checkpoint anew: hrseg export."
    )
