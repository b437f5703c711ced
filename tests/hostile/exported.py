"""Files of other runtimes: graphs that read, call, or grow."""

import json
from types import SimpleNamespace

import torch

from tests.hostile import CONTROL, Artefact

ONNX = (
    ("predict", "{photo}", "--checkpoint", "{given}/m.onnx", "--out", "out"),
    ("weights", "inspect", "{given}/m.onnx"),
)
XML = (
    ("predict", "{photo}", "--checkpoint", "{given}/m.xml", "--out", "out"),
    ("weights", "inspect", "{given}/m.xml"),
)
SIZE = 64  # of what is read from a file outside


def facts(place, **changed):
    said = torch.load(place.checkpoint, map_location="cpu", weights_only=True)["hrseg"]
    return {**said, "export": {"input": "normalized", "output": "logits", "int8": False}, **changed}


def _onnx(nodes, tensors=(), said=None, opsets=None, functions=()):
    """A graph from `image` to `logits`, as hrseg's own have."""

    def make(place):
        import onnx
        from onnx import TensorProto, helper

        open_size = ["b", 3, "h", "w"]
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, open_size)
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)
        made = [tensor(place) if callable(tensor) else tensor for tensor in tensors]
        graph = helper.make_graph([node() for node in nodes], "g", [image], [logits], made)
        imports = [
            helper.make_opsetid(name, number) for name, number in (opsets or {"": 18}).items()
        ]
        model = helper.make_model(graph, opset_imports=imports, functions=list(functions))
        model.ir_version = 10
        text = said(place) if callable(said) else said or json.dumps(facts(place))
        helper.set_model_props(model, {"hrseg": text})
        onnx.save(model, str(place.given / "m.onnx"))

    return make


def _node(op, inputs, outputs, **attributes):
    def make():
        from onnx import helper

        return helper.make_node(op, inputs, outputs, **attributes)

    return make


PASS = _node("Identity", ["image"], ["logits"])


def _external(location):
    def tensor(place):
        from onnx import TensorProto

        where = location.replace("OUTSIDE", str(place.outside)).replace("URL", place.url)
        made = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[SIZE // 4])
        made.data_location = TensorProto.EXTERNAL
        for key, value in (("location", where), ("offset", "0"), ("length", str(SIZE))):
            entry = made.external_data.add()
            entry.key, entry.value = key, value
        return made

    return tensor


def _reads(location):
    total = _node("ReduceSum", ["x"], ["s"], keepdims=0)
    return _onnx([total, _node("Add", ["image", "s"], ["logits"])], [_external(location)])


def _sparse_constant():
    """Constant whose sparse values are read from a file outside."""
    from onnx import TensorProto, helper

    values = _external("../outside/secret.txt")(SimpleNamespace(outside="", url=""))
    places = helper.make_tensor("at", TensorProto.INT64, [SIZE // 4], list(range(SIZE // 4)))
    sparse = helper.make_sparse_tensor(values, places, [SIZE])
    return helper.make_node("Constant", [], ["x"], sparse_value=sparse)


def _sized(count):
    def tensor(place):
        from onnx import TensorProto, helper

        return helper.make_tensor("n", TensorProto.INT64, [len(count)], count)

    return tensor


def _said(text):
    return _onnx([PASS], said=text)


def _neighbour(place):
    (place.given / "x.bin").symlink_to(place.outside / "secret.txt")
    _reads("x.bin")(place)


IR = """<?xml version="1.0"?>{head}<net name="m" version="11"><layers>
<layer id="0" name="image" type="Parameter" version="opset1"><data shape="?,3,?,?"
 element_type="f32"/><output><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim><dim>-1</dim>
<dim>-1</dim></port></output></layer>
{layers}<layer id="9" name="out" type="Result" version="opset1"><input><port id="0"
 precision="FP32"><dim>-1</dim><dim>3</dim><dim>-1</dim><dim>-1</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="9" to-port="0"/></edges>
<rt_info><hrseg value="{facts}"/></rt_info></net>"""
HUGE = """<layer id="1" name="x" type="Const" version="opset1"><data element_type="f32"
 shape="{shape}" offset="{offset}" size="{size}"/><output><port id="0" precision="FP32">
<dim>{shape}</dim></port></output></layer>"""


def _ir(layers="", head="", said=None, bin=b"\0" * 64):
    def make(place):
        text = (said or json.dumps(facts(place))).replace("&", "&amp;").replace('"', "&quot;")
        head_text = head.replace("OUTSIDE", str(place.outside)).replace("URL", place.url)
        full = IR.format(head=head_text, layers=layers, facts=text)
        (place.given / "m.xml").write_text(full, encoding="utf-8")
        if bin is not None:
            (place.given / "m.bin").write_bytes(bin)

    return make


def _ir_linked(place):
    _ir(HUGE.format(shape=16, offset=0, size=64), bin=None)(place)
    (place.given / "m.bin").symlink_to(place.outside / "secret.txt")


def _onnx_as_xml(place):
    _reads("../outside/secret.txt")(place)
    (place.given / "m.onnx").rename(place.given / "m.xml")


ENTITY = "<!DOCTYPE net [<!ENTITY x SYSTEM 'file://OUTSIDE/secret.txt'><!ENTITY y SYSTEM 'URL'>]>"
LAUGHS = "<!DOCTYPE net [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(12)) + "]>"  # fmt: skip

GRAPHS = {
    "data outside": _reads("../outside/secret.txt"),
    "data at an absolute path": _reads("OUTSIDE/secret.txt"),
    "data at an address": _reads("URL"),
    "data in a pipe or device": _reads("/dev/zero"),
    "data behind a link": _neighbour,
    "sparse data outside": _onnx([_sparse_constant, _node("ReduceSum", ["x"], ["s"], keepdims=0),
                                  _node("Add", ["image", "s"], ["logits"])]),
    "a foreign operator": _onnx([_node("Run", ["image"], ["logits"], domain="hostile.code")],
                                opsets={"": 18, "hostile.code": 1}),
    "a Python operator": _onnx([_node("PyOp", ["image"], ["logits"], domain="ai.onnx.contrib",
                                      module="os", func="system")],
                               opsets={"": 18, "ai.onnx.contrib": 1}),
    "a training operator": _onnx([_node("PythonOp", ["image"], ["logits"], domain="com.microsoft",
                                        name="os.system")], opsets={"": 18, "com.microsoft": 1}),
    "names of control": _onnx([_node("Nothing", [f"{CONTROL}a"], ["logits"], name=CONTROL)]),
    "a constant of 2^40": _onnx([_node("ConstantOfShape", ["n"], ["x"]),
                                 _node("ReduceSum", ["x"], ["s"], keepdims=0),
                                 _node("Add", ["image", "s"], ["logits"])], [_sized([2**40])]),
    "an image 2^20 times as wide": _onnx([_node("Tile", ["image", "n"], ["logits"])],
                                         [_sized([1, 1, 1, 2**20])]),
    "logits of one class": _onnx([_node("ReduceMax", ["image"], ["logits"], keepdims=0)]),
    "no facts": _said("{"),
    "deep facts": _said("[" * 1_000_000),
    "facts of control": _said(lambda p: json.dumps(facts(p, class_names=[CONTROL, "b", "c"]))),
    "facts without export": _said(lambda p: json.dumps({**facts(p), "export": 3})),
    "facts without architecture": _said('{"export": {"input": "uint8", "output": "ids"}}'),
    "facts of NaN": _said(lambda p: json.dumps(facts(p, std=[float("nan")] * 3))),
    "facts with a kind of control": _said(lambda p: json.dumps(
        facts(p, export={"input": CONTROL, "output": "ids"}))),
}  # fmt: skip
NETS = {
    "an entity": _ir(head=ENTITY),
    "entities that laugh": _ir(head=LAUGHS),
    "a constant beyond the file": _ir(HUGE.format(shape=2**40, offset=0, size=2**42)),
    "a constant at an offset beyond the file": _ir(HUGE.format(shape=16, offset=2**60, size=64)),
    "a foreign layer": _ir('<layer id="1" name="x" type="os.system" version="hostile"/>'),
    "no weights": _ir(HUGE.format(shape=16, offset=0, size=64), bin=None),
    "deep facts": _ir(said="[" * 100_000),
    "another format inside": _onnx_as_xml,
}
ARTEFACTS = [
    *(Artefact(f"onnx: {name}", make, ONNX) for name, make in GRAPHS.items()),
    *(Artefact(f"openvino: {name}", make, XML) for name, make in NETS.items()),
    Artefact("openvino: weights behind a link", _ir_linked, XML, follows=True),
]
