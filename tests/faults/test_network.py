"""No network: nothing that is imported or run opens a socket, in Python or below it."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults import counts
from tests.paths import ROOT

# The hook comes first: what imports do is seen as well.
CHILD = r"""
import json, socket, sys
seen, told = [], []
calls = ("socket.", "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.")
def hook(event, arguments):
    if not event.startswith(calls) or event == "socket.gethostname":
        return
    family = arguments[1] if event == "socket.__new__" else getattr(arguments[0], "family", None)
    if family != socket.AF_UNIX:  # data workers pass their memory through files of this kind
        seen.append(f"{event} {arguments[1:]}"[:300])
sys.addaudithook(hook)
def everything():
    import importlib, pkgutil, hrseg
    for module in pkgutil.walk_packages(hrseg.__path__, "hrseg."):
        if module.name != "hrseg.__main__":
            importlib.import_module(module.name)
def run(words):
    if words == ["import"]:
        return everything()
    from hrseg.cli import main
    return main(words)
for words in json.loads(sys.argv[2]):
    seen.clear()
    try:
        code = run(words) or 0
    except BaseException as error:
        code = repr(error)
    told.append({"code": code, "seen": list(seen)})
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""
TINY = """\
name: tiny
data: {name: synthetic, root: data, num_train: 4, num_val: 2, image_size: [64, 64], batch_size: 2,
  crop_size: [32, 32], scales: [0.75, 1.5], photometric: 0.5, workers: 2}
model: {backbone: hrnet_w18_small_v1}
optimizer: {name: sgd}
trainer: {max_epochs: 1, accelerator: cpu, enable_progress_bar: false}
loggers: [tensorboard]
"""
RUN = "runs/tiny/latest"
CHECKPOINT = f"{RUN}/checkpoints/best.ckpt"
COMMANDS = (
    ("import",),
    ("fit", "--config", "tiny.yaml"),
    ("validate", "--checkpoint", CHECKPOINT),
    ("report", RUN),
    ("predict", "data", "--checkpoint", RUN, "--polygons", "--probabilities"),
    ("fit", "--resume", RUN, "trainer.max_epochs=2"),
    ("export", RUN, "--format", "onnx", "--images", "1"),
    ("export", RUN, "--format", "openvino", "--images", "1"),
    ("validate", "--checkpoint", f"{RUN}/exported/tiny.onnx"),
    ("predict", "data", "--checkpoint", f"{RUN}/exported/tiny.xml", "--out", "other"),
    ("export", RUN, "--format", "openvino", "--int8", "--images", "1", "--out", "int8.xml"),
    ("export", RUN, "--format", "torch-export", "--images", "0"),
    ("weights", "inspect", CHECKPOINT, "--config", "tiny.yaml"),
    ("weights", "convert", CHECKPOINT, "--to", "official", "--out", "w.pth"),
    ("data", "check", "--config", "tiny.yaml"),
    ("data", "stats", "--config", "tiny.yaml"),
    ("data", "cache", "--config", "tiny.yaml"),
    ("benchmark", "model", "--config", "tiny.yaml", "--steps", "2"),
    ("init", "data"),
    ("doctor",),
    ("configs",),
)


TOGETHER = 3  # in one process, which imports once


@counts(3, len(COMMANDS))
def test_no_import_and_no_command_opens_a_socket(count, tmp_path):
    """A whole offline training is among the first commands."""
    folder, lost = tmp_path, []
    (folder / "tiny.yaml").write_text(TINY)
    commands = COMMANDS[:count]
    for group in (commands[:TOGETHER], *([one] for one in commands[TOGETHER:])):
        lost += filter(None, _faults(group, folder))
    assert not lost, "\n".join(lost)


def _faults(group: Sequence[tuple[str, ...]], folder: Path) -> list[str | None]:
    """Return what was wrong with each of some commands, in a process of their own."""
    answer, calls = folder / "answer.json", folder / "calls.txt"
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-P", "-c", CHILD, str(answer), json.dumps(group)]
    strace = shutil.which("strace")
    if strace:  # it sees what C libraries do as well
        watched = [strace, "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", str(calls)]
        command = [*watched, *command]
    house = str(ROOT)
    environment = {**os.environ, "HOME": str(folder), "PYTHONPATH": house, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    names = [" ".join(words) for words in group]
    if not answer.is_file():
        return [f"{name}: did not come to its end: {done.stderr[-500:]}" for name in names]
    below = calls.read_text().splitlines() if strace else []
    sockets = [line for line in below if re.search(r"AF_INET|AF_NETLINK|AF_PACKET", line)]
    told = json.loads(answer.read_text())
    return [_fault(name, one, sockets, done.stderr) for name, one in zip(names, told, strict=True)]


def _fault(name: str, told: dict[str, Any], sockets: list[str], stderr: str) -> str | None:
    if told["seen"] or sockets:
        return f"{name}: {'; '.join([*told['seen'], *sockets])[:800]}"
    if told["code"] != 0:
        return f"{name}: exit code {told['code']}: {stderr[-500:]}"
    return None
