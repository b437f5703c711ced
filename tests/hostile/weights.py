"""Weight files that would run code if they were unpickled."""

import importlib
import io
import os
import pickle
import zipfile

import torch

from tests.hostile import Artefact, save, table, write

FILE = "{given}/w.pth"
TRY = (("weights", "inspect", FILE), ("predict", "{photo}", "--checkpoint", FILE, "--out", "out"))
LOADED = (("load", FILE), ("load_weights", FILE))


class Call:
    """Pickles as a call, and optionally a state for its result."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def _system(place):
    return Call(os.system, f"touch {place.ran}")


def _exec(place):
    return Call(exec, f"hostile_code = open({place.ran!r}, 'w')")


PAYLOADS = {
    "system": _system,
    "exec": _exec,
    "getattr": lambda place: Call(getattr, Call(importlib.import_module, "os"), "system"),
    "pickle": lambda place: Call(pickle.loads, pickle.dumps(_system(place))),
    "bytes": lambda place: Call(torch.storage._load_from_bytes, pickle.dumps(_system(place))),
    "hub": lambda place: Call(torch.hub.download_url_to_file, place.url, place.ran),
    "module": lambda place: Call(torch.nn.Linear, 3, 3),
    "state": lambda place: Call(torch.nn.Identity, state={"__class__": _system(place)}),
}
OPCODES = {
    "inst": "(S'touch RAN'\nios\nsystem\n.",
    "obj": "(cos\nsystem\nS'touch RAN'\no.",
    "global": "cos\nsystem\n(S'touch RAN'\ntR.",
    "ext": "\x82\x01.",
    "persid": "Pos.system\n.",
    "build": "ccollections\nOrderedDict\n)R}Vupdate\ncos\nsystem\nsb.",
    "tensor_hooks": "ctorch._utils\n_rebuild_parameter\n(I1\nI1\ncos\nsystem\ntR.",
    "attribute": "ctorch\nos.system\n(S'touch RAN'\ntR.",
    "dunder": "ctorch._utils\n__builtins__\n.",
    "deep": "(" * 100_000 + "t" * 100_000 + ".",
}


def _in_metadata(payload):
    return save(lambda content, place: content["hrseg"].update(class_names=payload(place)))


def _in_optimizer(payload, **options):
    return save(
        lambda content, place: content.update(optimizer_states=[{"state": {0: payload(place)}}]),
        **options,
    )


def _pickled(protocol, name="w.pth"):
    return write(name, lambda place: pickle.dumps(_system(place), protocol=protocol))


def _archived(name, records):
    """A zip archive as torch writes one."""

    def make(place):
        writer = torch._C.PyTorchFileWriter(str(place.given / name))
        for key, data in records(place).items():
            writer.write_record(key, data, len(data))
        writer.write_end_of_file()

    return make


def _opcodes(text):
    return _archived("w.pth", lambda place: {"data.pkl": place.fill(text).encode("latin-1")})


def _torchscript(place):
    code = b"import os\nos.system('touch hostile_code')\n"
    empty = b"\x80\x02)."
    return {"data.pkl": empty, "constants.pkl": empty, "code/__torch__.py": code}


def _pt2(place):
    inputs = io.BytesIO()
    torch.save({"x": _system(place)}, inputs)
    return {
        "archive_format": b"pt2",
        "archive_version": b"0",
        "models/model.json": b'{"graph_module": {}, "opset_version": {}}',
        "data/sample_inputs/model.pt": inputs.getvalue(),
        "data/constants/custom_obj_0": pickle.dumps(_system(place), protocol=2),
    }


def _zip_slip(place):
    with zipfile.ZipFile(place.given / "w.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(_system(place), protocol=2))
        for name in ("../../outside/victim.txt", "/tmp/hostile_code", "archive/../../x"):
            file.writestr(name, "hostile_code")


def _commands(name):
    file = f"{{given}}/{name}"
    validate = ("validate", "--config", "synthetic_tiny", "--checkpoint", file, "data.root={data}")
    return ("weights", "inspect", file), validate, ("load", file)


ARTEFACTS = [
    *table("weights", {f"{n} in metadata": _in_metadata(p) for n, p in PAYLOADS.items()}, TRY),
    *table("weights", {f"pickle of protocol {n}": _pickled(n) for n in (0, 2, 4)}, LOADED),
    *table("weights", {f"opcode {name}": _opcodes(text) for name, text in OPCODES.items()}, LOADED),
    *table("weights", {
        "exec in optimizer state, legacy": _in_optimizer(
            _exec, _use_new_zipfile_serialization=False),
        "zip that leads out": _zip_slip,
    }, TRY),
    *table("weights", {
        "pipe": lambda place: os.mkfifo(place.given / "w.pth"),
        "device": lambda place: (place.given / "w.pth").symlink_to("/dev/zero"),
    }, LOADED),
    Artefact("weights: system in optimizer state", _in_optimizer(_system), _commands("w.pth")),
    Artefact("weights: torchscript archive", _archived("w.pt", _torchscript), _commands("w.pt")),
    Artefact("weights: torch.export archive", _archived("w.pt2", _pt2), _commands("w.pt2")),
    *(Artefact(f"weights: pickle as .{suffix}", _pickled(2, f"w.{suffix}"),
               _commands(f"w.{suffix}")) for suffix in ("safetensors", "onnx", "xml")),
    Artefact("weights: url", lambda place: None, (("load", "http://127.0.0.1:{port}/w.pth"),)),
]  # fmt: skip
