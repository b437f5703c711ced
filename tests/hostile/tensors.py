"""Weights without code that lie: headers, facts, shapes, training states."""

import json
import struct

import torch
from safetensors.torch import save_file

from tests.golden_weights import official_weights
from tests.hostile import CONTROL, MARKUP, SCRIPT, Artefact
from tests.hostile.weights import content
from tests.weight_files import mmseg

FILE = "{given}/w.safetensors"
SAFE = (("weights", "inspect", FILE), ("load", FILE))
CHECKPOINT = (
    ("predict", "{photo}", "--checkpoint", "{given}/w.pth", "--out", "out", "--polygons"),
    ("weights", "inspect", "{given}/w.pth"),
    ("export", "{given}/w.pth", "--format", "safetensors", "--out", "out/x.safetensors"),
)


def _header(header, body=b"\0" * 64, length=None):
    def make(place):
        data = header if isinstance(header, bytes) else json.dumps(header).encode()
        size = struct.pack("<Q", len(data) if length is None else length)
        (place.given / "w.safetensors").write_bytes(size + data + body)

    return make


def _tensor(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


KEY = "stage2.0.fuse_layers.0.1.0.weight"
HEADERS = {
    "header beyond the file": _header({}, length=2**62),
    "header of 90 MB": _header({"__metadata__": {"a": "a" * 90_000_000}}, b""),
    "overlapping offsets": _header({"a": _tensor(), "b": _tensor(offsets=(8, 24))}),
    "offsets beyond the file": _header({"a": _tensor(offsets=(0, 2**40), shape=(2**38,))}),
    "offsets backwards": _header({"a": _tensor(offsets=(16, 0))}),
    "negative shape": _header({"a": _tensor(shape=(-4,))}),
    "shape that overflows": _header({"a": _tensor(shape=(2**62, 2**62, 2**62))}),
    "shape of NaN": _header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'),
    "shape of zeros": _header({KEY: _tensor(shape=(0, 2**60), offsets=(0, 0))}, b""),
    "unknown type": _header({"a": _tensor(dtype="os.system")}),
    "deep header": _header(b'{"a":' + b"[" * 1_000_000),
    "double keys": _header(b'{"a":' + json.dumps(_tensor()).encode() + b',"a":1}'),
    "control in a key": _header({f"{CONTROL}a": _tensor()}),
    "no object": _header(b"[1]"),
}


def _metadata(text):
    def make(place):
        save_file({"a": torch.ones(1)}, place.given / "w.safetensors", {"hrseg": text})

    return make


def _facts(**changed):
    def make(place):
        raw = content(place)
        facts = dict(raw["hrseg"])
        for key, value in changed.items():
            if isinstance(value, dict) and isinstance(facts.get(key), dict):
                facts[key] = {**facts[key], **value}
            else:
                facts[key] = value
        torch.save({**raw, "hrseg": facts}, place.given / "w.pth")

    return make


def laughs(depth=60):
    """A list of lists that is small in a file, and endless to whoever writes it out."""
    found = ["ha"] * 2
    for _ in range(depth):
        found = [found, found]
    return found


def _itself():
    found = []
    found.append(found)
    return found


NAMES = {
    "long": ["a" * 10_000_000, "car", "tree"],
    "markup": [MARKUP, "[/]", "tree"],
    "script": [SCRIPT, '"><svg onload=alert(1)>', "tree"],
}
FACTS = {
    **{f"class names of {key}": {"class_names": value} for key, value in NAMES.items()},
    "class names as a dict": {"class_names": {"a": 1, "b": 2, "c": 3}},
    "a million class names": {"class_names": ["a"] * 10**6, "palette": [[0, 0, 0]] * 10**6,
                              "architecture": {"num_classes": 10**6}},
    "num_classes 10^9": {"architecture": {"num_classes": 10**9}},
    "architecture of a module": {"architecture": {"backbone": "os.system"}},
    "architecture with a call": {"architecture": {"_target_": "os.system", "num_classes": 3}},
    "architecture of a class": {"architecture": "torch.nn.Linear"},
    "palette of a million": {"palette": [[0, 0, 0]] * 10**6},
    "palette of tensors": {"palette": torch.zeros(3, 3)},
    "10^6 scales": {"protocol": {"scales": [1.0 + i / 1e6 for i in range(10**6)]}},
    "scale 100": {"protocol": {"scales": [100.0]}},
    "padding to 65536": {"protocol": {"pad_multiple": 65536}},
    "resize to 65536": {"protocol": {"resize": [65536, 65536]}},
    "a billion windows": {"protocol": {"resize": [8192, 8192], "window": [32, 32],
                                       "stride": [1, 1]}},
    "protocol that laughs": {"protocol": {"average": laughs()}},
    "protocol inside itself": {"protocol": {"average": _itself(), "window": _itself()}},
    "protocol name of control": {"protocol": {"name": f"{CONTROL}\n\n\n\nhrseg: all is well"}},
    "mean of NaN": {"mean": [float("nan")] * 3},
    "std of next to nothing": {"std": [1e-300] * 3},
    "format 10^4000": {"format": 10**4000, "version": CONTROL},
    "facts that laugh": {"more": laughs()},
    "no protocol": {"protocol": None},
}  # fmt: skip


def _weights(**changed):
    def make(place):
        raw = content(place)
        torch.save({**raw, "state_dict": {**raw["state_dict"], **changed}}, place.given / "w.pth")

    return make


WEIGHTS = {
    "tensors named with control": {f"model.backbone.{CONTROL}\n\n\n\n\nx": torch.zeros(1)},
    "weights of NaN": {"model.head.last_layer.3.bias": torch.full((3,), float("nan"))},
    "expanded tensor": {"model.head.last_layer.3.bias": torch.zeros(1).expand(2**40)},
    "complex weights": {"model.head.last_layer.3.bias": torch.zeros(3, dtype=torch.cfloat)},
    "scalar weights": {"model.head.last_layer.3.bias": torch.zeros(())},
}


def _mmseg(place):
    """Class names of mmsegmentation's that never end."""
    state = mmseg(official_weights("w18_small_v1"))
    meta = {"CLASSES": laughs(), "dataset_meta": {"classes": laughs()}}
    torch.save({"meta": meta, "state_dict": state}, place.given / "w.pth")


ARTEFACTS = [
    *(Artefact(f"safetensors: {name}", make, SAFE) for name, make in HEADERS.items()),
    *(Artefact(f"safetensors: facts that are {name}", _metadata(text), SAFE) for name, text in {
        "no JSON": "{", "deep": "[" * 1_000_000, "a huge number": "1" * 100_000,
        "NaN": '{"mean": NaN, "class_names": 1}', "a list": "[]",
    }.items()),
    *(Artefact(f"facts: {name}", _facts(**changed), CHECKPOINT) for name, changed in FACTS.items()),
    Artefact("tensors: class names of mmseg that laugh", _mmseg, CHECKPOINT[1:2]),
    *(Artefact(f"tensors: {name}", _weights(**changed), CHECKPOINT)
      for name, changed in WEIGHTS.items()),
]  # fmt: skip
