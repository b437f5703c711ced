"""Hostile weight files without code: headers, metadata and shapes."""

import json
import struct

import torch
from safetensors.torch import save as serialized

from tests.hostile import CONTROL, laughs, save, table, write

FILE = "{given}/w.safetensors"
CHECKPOINT = (
    ("predict", "{photo}", "--checkpoint", "{given}/w.pth", "--out", "out", "--polygons"),
    ("weights", "inspect", "{given}/w.pth"),
    ("export", "{given}/w.pth", "--format", "safetensors", "--out", "out/x.safetensors"),
)


def _header(header, body=b"\0" * 64, length=None):
    data = json.dumps(header).encode()
    return write("w.safetensors", struct.pack("<Q", length or len(data)) + data + body)


def _entry(shape=(4,), offsets=(0, 16)):
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


SAFETENSORS = {
    "header beyond the file": _header({}, length=2**62),
    "header of 90 MB": _header({"__metadata__": {"a": "a" * 90_000_000}}, b""),
    "overlapping offsets": _header({"a": _entry(), "b": _entry(offsets=(8, 24))}),
    "shape that overflows": _header({"a": _entry(shape=(2**62,) * 3)}),
    "control in a key": _header({f"{CONTROL}a": _entry()}),
    "deep metadata": write(
        "w.safetensors", serialized({"a": torch.ones(1)}, {"hrseg": "[" * 1_000_000})
    ),
}


def _changed(metadata):
    """Replace entries of the metadata; dict entries are merged."""

    def change(content, paths):
        for key, value in metadata.items():
            nested = isinstance(value, dict)
            content["hrseg"][key] = {**content["hrseg"][key], **value} if nested else value

    return save(change)


METADATA = {
    "architecture with a call": {"architecture": {"_target_": "os.system", "num_classes": 3}},
    "10^6 scales": {"protocol": {"scales": [1.0 + i / 1e6 for i in range(10**6)]}},
    "a billion windows": {"protocol": {"resize": [8192] * 2, "window": [32] * 2, "stride": [1, 1]}},
    "protocol that laughs": {"protocol": {"average": laughs()}},
    "protocol name of control": {"protocol": {"name": f"{CONTROL}\n\n\n\nhrseg: all is well"}},
    "std close to zero": {"std": [1e-300] * 3, "mean": [float("nan")] * 3},
}


def _weights(new):
    return save(lambda content, paths: content["state_dict"].update(new))


BIAS = "model.head.last_layer.3.bias"
WEIGHTS = {
    "tensors named with control": _weights({f"model.{CONTROL}\n\n\n\n\nx": torch.zeros(1)}),
    "weights of NaN": _weights({BIAS: torch.full((3,), float("nan"))}),
    "expanded tensor": _weights({BIAS: torch.zeros(1).expand(2**40)}),
}


ARTEFACTS = [
    *table("safetensors", SAFETENSORS, (("weights", "inspect", FILE), ("load", FILE))),
    *table("metadata", {name: _changed(new) for name, new in METADATA.items()}, CHECKPOINT),
    *table("tensors", WEIGHTS, CHECKPOINT),
]
