"""Hostile ONNX and OpenVINO files: external data, code and huge constants."""

import json

import torch

from tests.hostile import CONTROL, table, write


def _commands(file):
    predict = ("predict", "{photo}", "--checkpoint", file, "--out", "out")
    return predict, ("weights", "inspect", file)


def metadata(paths, **changed):
    stored = torch.load(paths.checkpoint, map_location="cpu", weights_only=True)["hrseg"]
    export = {"input": "normalized", "output": "logits", "int8": False}
    return json.dumps({**stored, "export": export, **changed})


def _onnx(nodes, tensors="", domain="", **changed):
    """Return a function that writes an ONNX graph from its text, with changed metadata."""

    def make(paths):
        import onnx

        domains = '"" : 18' + f', "{domain}" : 1' * bool(domain)
        model = onnx.parser.parse_model(
            f"<ir_version: 10, opset_import: [{domains}]>"
            f"g (float[b, 3, h, w] image) => (float[] logits) {tensors} {{ {nodes} }}"
        )
        onnx.helper.set_model_props(model, {"hrseg": metadata(paths, **changed)})
        onnx.save(model, str(paths.given / "m.onnx"))

    return make


ADDED = "s = ReduceSum<keepdims = 0>(x) logits = Add(image, s)"


EXTERNAL = '"location": "../outside/secret.txt", "offset": "0", "length": "64"'
GRAPHS = {
    "data outside": _onnx(ADDED, f"<float[16] x = [{EXTERNAL}]>"),
    "a foreign operator": _onnx("logits = hostile.code.Run(image)", domain="hostile.code"),
    "a constant of 2^40": _onnx(f"x = ConstantOfShape(n) {ADDED}", f"<int64[1] n = {{{2**40}}}>"),
    "an image 2^20 times as wide": _onnx("logits = Tile(image, n)",
                                         f"<int64[4] n = {{1, 1, 1, {2**20}}}>"),
    "metadata of control": _onnx("logits = Identity(image)", class_names=[CONTROL, "b", "c"],
                                 export={"input": CONTROL, "output": "ids"}),
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
    def make(paths):
        stored = metadata(paths).replace("&", "&amp;").replace('"', "&quot;")
        write("m.xml", IR.format(head=head, layers=layers, facts=stored))(paths)
        write("m.bin", bytes(64))(paths)

    return make


NETWORKS = {
    "an entity": _ir(head=ENTITY),
    "entities that laugh": _ir(head=LAUGHS),
    "a constant beyond the file": _ir(CONSTANT.format(2**40, 0, 2**42)),
    "a constant at an offset beyond the file": _ir(CONSTANT.format(16, 2**60, 64)),
}
ARTEFACTS = [
    *table("onnx", GRAPHS, _commands("{given}/m.onnx")),
    *table("openvino", NETWORKS, _commands("{given}/m.xml")),
]
