"""Files of weights whose reading would run code, if anything ran it."""

import functools
import importlib
import io
import os
import pickle
import subprocess
import sys
import webbrowser
import zipfile

import torch

from tests.hostile import Artefact, Place

TRY = (
    ("weights", "inspect", "{given}/w.pth"),
    ("predict", "{photo}", "--checkpoint", "{given}/w.pth", "--out", "out"),
)
LOADED = (("load", "{given}/w.pth"), ("load_weights", "{given}/w.pth"))
CONFIG = (
    ("validate", "--config", "synthetic_tiny", "--checkpoint", "{given}/w.pth", "data.root={data}"),
)


class Call:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class State:
    """Pickles to an object whose state is set by a stranger."""

    def __init__(self, cls, state):
        self.cls, self.state = cls, state

    def __reduce__(self):
        return self.cls, (), self.state


def content(place: Place):
    return torch.load(place.checkpoint, map_location="cpu", weights_only=True)


def _in_facts(payload):
    def make(place):
        raw = content(place)
        raw["hrseg"] = {**raw["hrseg"], "class_names": payload(place)}
        torch.save(raw, place.given / "w.pth")

    return make


def _beside(payload, zipped=True):
    def make(place):
        raw = {**content(place), "optimizer_states": [{"state": {0: payload(place)}}]}
        torch.save(raw, place.given / "w.pth", _use_new_zipfile_serialization=zipped)

    return make


def _bare(payload, protocol=2):
    def make(place):
        data = pickle.dumps(payload(place), protocol=protocol)
        (place.given / "w.pth").write_bytes(data)

    return make


def _opcodes(text):
    """A pickle written by hand, alone and inside of a zip as torch writes one."""

    def make(place):
        data = text.replace("RAN", place.ran).encode("latin-1")
        archive(place.given / "w.pth", {"data.pkl": data, "version": b"3\n"})

    return make


def archive(path, records):
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, data in records.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()


def _system(place):
    return Call(os.system, f"touch {place.ran}")


PAYLOADS = {
    "system": _system,
    "popen": lambda place: Call(subprocess.Popen, ["touch", place.ran]),
    "exec": lambda place: Call(exec, f"hostile_code = open({place.ran!r}, 'w')"),
    "eval": lambda place: Call(eval, f"open({place.ran!r}, 'w').write('hostile_code')"),
    "open": lambda place: Call(open, place.ran, "w"),
    "getattr": lambda place: Call(getattr, Call(importlib.import_module, "os"), "system"),
    "import": lambda place: Call(importlib.import_module, "this"),
    "partial": lambda place: Call(functools.partial, os.system, f"touch {place.ran}"),
    "browser": lambda place: Call(webbrowser.open, place.url),
    "pickle": lambda place: Call(pickle.loads, pickle.dumps(_system(place))),
    "torch_load": lambda place: Call(torch.load, place.photo, "cpu"),
    "bytes": lambda place: Call(torch.storage._load_from_bytes, pickle.dumps(_system(place))),
    "hub": lambda place: Call(torch.hub.download_url_to_file, place.url, place.ran),
    "module": lambda place: Call(torch.nn.Linear, 3, 3),
    "path": lambda place: Call(sys.path.insert, 0, str(place.given)),
    "state": lambda place: State(torch.nn.Identity, {"__class__": _system(place)}),
}
POPCODES = {
    "inst": "(S'touch RAN'\nios\nsystem\n.",
    "obj": "(cos\nsystem\nS'touch RAN'\no.",
    "global": "cos\nsystem\n(S'touch RAN'\ntR.",
    "global_only": "ctorch.hub\nload\n.",
    "ext": "\x82\x01.",
    "persid": "Pos.system\n.",
    "binpersid": "(Vstorage\ncos\nsystem\nVk\nVcpu\nI1\ntQ.",
    "build": "ccollections\nOrderedDict\n)R}Vupdate\ncos\nsystem\nsb.",
    "tensor_hooks": "ctorch._utils\n_rebuild_parameter\n(I1\nI1\ncos\nsystem\ntR.",
    "attribute": "ctorch\nos.system\n(S'touch RAN'\ntR.",
    "dunder": "ctorch._utils\n__builtins__\n.",
    "deep": "(" * 100_000 + "t" * 100_000 + ".",
    "memo": "".join("h\x00" for _ in range(3)) + ".",
}


def _torchscript(place):
    code = b"import os\nos.system('touch hostile_code')\n"
    empty = b"\x80\x02).", b"\x80\x02)."
    records = {"data.pkl": empty[0], "constants.pkl": empty[1], "code/__torch__.py": code}
    archive(place.given / "w.pt", {**records, "version": b"3\n"})


def _pt2(place):
    payload = pickle.dumps(_system(place), protocol=2)
    stored = io.BytesIO()
    torch.save({"x": _system(place)}, stored)
    records = {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "models/model.json": b'{"graph_module": {}, "opset_version": {}}',
        "data/sample_inputs/model.pt": stored.getvalue(),
        "data/weights/weight_0": payload,
        "data/constants/custom_obj_0": payload,
    }
    archive(place.given / "w.pt2", records)


def _named(name, make):
    def renamed(place):
        make(place)
        (place.given / "w.pth").rename(place.given / name)

    return renamed


def _zip_slip(place):
    with zipfile.ZipFile(place.given / "w.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_system(place), protocol=2))
        for name in ("../../outside/victim.txt", "/tmp/hostile_code", "archive/../../x"):
            file.writestr(name, "hostile_code")


def _fifo(place):
    os.mkfifo(place.given / "w.pth")


def _both(name, make, commands):
    return Artefact(f"weights: {name}", make, commands)


def _given(name):
    file = f"{{given}}/{name}"
    return (
        ("weights", "inspect", file),
        ("validate", "--config", "synthetic_tiny", "--checkpoint", file, "data.root={data}"),
        ("load", file),
    )


ARTEFACTS = [
    *(_both(f"{n} in facts", _in_facts(p), TRY) for n, p in PAYLOADS.items()),
    *(_both(f"{n} bare", _bare(p, protocol), LOADED)
      for protocol, (n, p) in enumerate(list(PAYLOADS.items())[:5])),
    _both("system in optimizer state", _beside(_system), (*TRY, *CONFIG)),
    _both("exec in optimizer state, legacy", _beside(PAYLOADS["exec"], zipped=False), TRY),
    *(_both(f"opcode {n}", _opcodes(t), LOADED) for n, t in POPCODES.items()),
    _both("torchscript archive", _torchscript, _given("w.pt")),
    _both("torch.export archive", _pt2, _given("w.pt2")),
    *(_both(f"pickle as .{suffix}", _named(f"w.{suffix}", _bare(_system)), _given(f"w.{suffix}"))
      for suffix in ("safetensors", "onnx", "xml")),
    _both("zip that leads out", _zip_slip, TRY),
    _both("pipe", _fifo, LOADED),
    _both("url", lambda place: None, (("load", "http://127.0.0.1:{port}/w.pth"),)),
    _both("device", lambda place: (place.given / "w.pth").symlink_to("/dev/zero"), LOADED),
]  # fmt: skip
