"""Hostile weight files with code, which unpickling would run."""

import importlib
import os
import pickle

import torch

from tests.hostile import Artefact, save, table, write

FILE = "{given}/w.pth"
TRY = (("weights", "inspect", FILE), ("predict", "{photo}", "--checkpoint", FILE, "--out", "out"))
LOADED = (("load", FILE), ("load_weights", FILE))
VALIDATE = ("validate", "--config", "synthetic_tiny", "--checkpoint", FILE, "data.root={data}")


class Call:
    """Object whose pickle is a function call, with an optional state for the result."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def _system(paths):
    return Call(os.system, paths.fill("touch RAN"))


PAYLOADS = {
    "system": _system,
    "exec": lambda paths: Call(exec, paths.fill("hostile_code = open('RAN', 'w')")),
    "getattr": lambda paths: Call(getattr, Call(importlib.import_module, "os"), "system"),
    "bytes": lambda paths: Call(torch.storage._load_from_bytes, pickle.dumps(_system(paths))),
    "state": lambda paths: Call(torch.nn.Identity, state={"__class__": _system(paths)}),
}
OPCODES = {
    "inst": "(S'touch RAN'\nios\nsystem\n.",
    "global": "cos\nsystem\n(S'touch RAN'\ntR.",
    "persid": "Pos.system\n.",
    "build": "ccollections\nOrderedDict\n)R}Vupdate\ncos\nsystem\nsb.",
    "attribute": "ctorch\nos.system\n(S'touch RAN'\ntR.",
    "deep": "(" * 100_000 + "t" * 100_000 + ".",
}


def _in_optimizer(payload, legacy=False):
    def change(content, paths):
        content["optimizer_states"] = [{"state": {0: payload(paths)}}]

    return save(change, _use_new_zipfile_serialization=not legacy)


def _archive(name, records):
    """Return a function that writes a zip archive in torch's format."""

    def make(paths):
        writer = torch._C.PyTorchFileWriter(str(paths.given / name))
        for key, data in records.items():
            raw = paths.fill(data).encode("latin-1") if isinstance(data, str) else data
            writer.write_record(key, raw, len(raw))
        writer.write_end_of_file()

    return make


CODE = "import os\nos.system('touch hostile_code')\n"
TORCHSCRIPT = {
    "data.pkl": b"\x80\x02).", "constants.pkl": b"\x80\x02).", "code/__torch__.py": CODE,
}  # fmt: skip
PT2 = {
    "archive_format": "pt2", "archive_version": "0",
    "models/model.json": '{"graph_module": {}, "opset_version": {}}',
    "data/constants/custom_obj_0": OPCODES["global"],
}  # fmt: skip
PICKLED = {
    **{f"{name} in optimizer state": _in_optimizer(call) for name, call in PAYLOADS.items()},
    "exec in optimizer state, legacy": _in_optimizer(PAYLOADS["exec"], legacy=True),
}
FILES = {
    **{f"opcode {name}": _archive("w.pth", {"data.pkl": text}) for name, text in OPCODES.items()},
    "pickle": write("w.pth", OPCODES["global"]),
    "pipe": lambda paths: os.mkfifo(paths.given / "w.pth"),
    "device": lambda paths: (paths.given / "w.pth").symlink_to("/dev/zero"),
}
NAMED = {
    "w.pt": ("torchscript archive", _archive("w.pt", TORCHSCRIPT)),
    "w.pt2": ("torch.export archive", _archive("w.pt2", PT2)),
    "w.xml": ("pickle as .xml", write("w.xml", OPCODES["global"])),
}
ARTEFACTS = [
    *table("weights", PICKLED, (*TRY, VALIDATE)),
    *table("weights", FILES, LOADED),
    *(Artefact(f"weights: {attack}", make, (("load", f"{{given}}/{name}"),))
      for name, (attack, make) in NAMED.items()),
    *table("weights", {"url": lambda paths: None}, (("load", "http://127.0.0.1:{port}/w.pth"),)),
]  # fmt: skip
