"""ONNX and OpenVINO files that read other files, call code or grow."""

import json

import torch

from tests.hostile import CONTROL, table, write

SIZE = 64  # bytes that are read from a file outside


def _commands(file):
    predict = ("predict", "{photo}", "--checkpoint", file, "--out", "out")
    return predict, ("weights", "inspect", file)


def metadata(place, **changed):
    stored = torch.load(place.checkpoint, map_location="cpu", weights_only=True)["hrseg"]
    export = {"input": "normalized", "output": "logits", "int8": False}
    return json.dumps({**stored, "export": export, **changed})


def _onnx(nodes, tensors="", text=metadata, domain="", change=None):
    """A graph from `image` to `logits`, in ONNX's text format."""

    def make(place):
        import onnx

        domains = '"" : 18' + f', "{domain}" : 1' * bool(domain)
        tensors_text = f"<{place.fill(tensors)}>" if tensors else ""
        model = onnx.parser.parse_model(
            f"<ir_version: 10, opset_import: [{domains}]>"
            f"g (float[b, 3, h, w] image) => (float[] logits) {tensors_text} {{ {nodes} }}"
        )
        if change:
            change(model.graph)
        onnx.helper.set_model_props(model, {"hrseg": text(place)})
        onnx.save(model, str(place.given / "m.onnx"))

    return make


SAME = "logits = Identity(image)"
ADDED = "s = ReduceSum<keepdims = 0>(x) logits = Add(image, s)"


def _reads(location):
    keys = f'"location": "{location}", "offset": "0", "length": "{SIZE}"'
    return _onnx(ADDED, f"float[{SIZE // 4}] x = [{keys}]")


def _sparse(graph):
    """Add a constant with sparse values that lie in a file outside."""
    from onnx import StringStringEntryProto, TensorProto, helper

    values = TensorProto(name="x", data_type=TensorProto.FLOAT, dims=[SIZE // 4])
    values.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../outside/secret.txt"), ("length", str(SIZE))):
        values.external_data.append(StringStringEntryProto(key=key, value=value))
    places = helper.make_tensor("at", TensorProto.INT64, [SIZE // 4], range(SIZE // 4))
    sparse = helper.make_sparse_tensor(values, places, [SIZE])
    graph.node.insert(0, helper.make_node("Constant", [], ["x"], sparse_value=sparse))


def _behind_a_link(place):
    (place.given / "x.bin").symlink_to(place.outside / "secret.txt")
    _reads("x.bin")(place)


GRAPHS = {
    "data outside": _reads("../outside/secret.txt"),
    "data at an absolute path": _reads("OUTSIDE/secret.txt"),
    "data behind a link": _behind_a_link,
    "sparse data outside": _onnx(ADDED, change=_sparse),
    "a foreign operator": _onnx("logits = hostile.code.Run(image)", domain="hostile.code"),
    "a Python operator": _onnx('logits = ai.onnx.contrib.PyOp<module = "os", func = "system">'
                               "(image)", domain="ai.onnx.contrib"),
    "a constant of 2^40": _onnx(f"x = ConstantOfShape(n) {ADDED}", f"int64[1] n = {{{2**40}}}"),
    "an image 2^20 times as wide": _onnx("logits = Tile(image, n)",
                                         f"int64[4] n = {{1, 1, 1, {2**20}}}"),
    "metadata of control": _onnx(SAME, text=lambda place: metadata(
        place, class_names=[CONTROL, "b", "c"], export={"input": CONTROL, "output": "ids"})),
}  # fmt: skip

IR = """<?xml version="1.0"?>{head}<net name="m" version="11"><layers>
<layer id="0" name="image" type="Parameter" version="opset1"><data shape="?,3,?,?"
 element_type="f32"/><output><port id="0" precision="FP32"><dim>-1</dim><dim>3</dim><dim>-1</dim>
<dim>-1</dim></port></output></layer>
{layers}<layer id="9" name="out" type="Result" version="opset1"><input><port id="0"
 precision="FP32"><dim>-1</dim><dim>3</dim><dim>-1</dim><dim>-1</dim></port></input></layer></layers>
<edges><edge from-layer="0" from-port="0" to-layer="9" to-port="0"/></edges>
<rt_info><hrseg value="{facts}"/></rt_info></net>"""
ENTITY = "<!DOCTYPE net [<!ENTITY x SYSTEM 'file://OUTSIDE/secret.txt'><!ENTITY y SYSTEM 'URL'>]>"
LAUGHS = "<!DOCTYPE net [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {chr(98 + i)} '{f'&{chr(97 + i)};' * 10}'>" for i in range(12)) + "]>"  # fmt: skip


CONSTANT = """<layer id="1" name="x" type="Const" version="opset1"><data element_type="f32"
 shape="{0}" offset="{1}" size="{2}"/><output><port id="0" precision="FP32"><dim>{0}</dim></port>
</output></layer>"""


def _ir(layers="", head=""):
    def make(place):
        stored = metadata(place).replace("&", "&amp;").replace('"', "&quot;")
        write("m.xml", IR.format(head=head, layers=layers, facts=stored))(place)
        write("m.bin", bytes(64))(place)

    return make


def _linked_weights(place):
    _ir(CONSTANT.format(16, 0, 64))(place)
    (place.given / "m.bin").unlink()
    (place.given / "m.bin").symlink_to(place.outside / "secret.txt")


NETWORKS = {
    "an entity": _ir(head=ENTITY),
    "entities that laugh": _ir(head=LAUGHS),
    "a constant beyond the file": _ir(CONSTANT.format(2**40, 0, 2**42)),
    "a constant at an offset beyond the file": _ir(CONSTANT.format(16, 2**60, 64)),
}
XML = _commands("{given}/m.xml")
ARTEFACTS = [
    *table("onnx", GRAPHS, _commands("{given}/m.onnx")),
    *table("openvino", NETWORKS, XML),
    *table("openvino", {"weights behind a link": _linked_weights}, XML, follows=True),
]
