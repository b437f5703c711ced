"""Absence of network sockets in imports and commands, in Python and in C libraries."""

import json
import os
import re
import shutil
import subprocess
import sys

from tests.faults import inject
from tests.hostile.configs import TINY
from tests.paths import ROOT

# The hook is installed first, so that it also records imports.
CHILD = r"""
import importlib, json, pkgutil, socket, sys
events, results = [], []
def hook(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.")) and event != "socket.gethostname":
        new = event == "socket.__new__"
        family = arguments[1] if new else getattr(arguments[0], "family", None)
        if family != socket.AF_UNIX:  # data workers pass file descriptors through such sockets
            events.append(f"{event} {arguments[1:]}"[:300])
sys.addaudithook(hook)
for words in json.loads(sys.argv[2]):
    events.clear()
    try:
        if words == ["import"]:
            import hrseg
            for module in pkgutil.walk_packages(hrseg.__path__, "hrseg."):
                if module.name != "hrseg.__main__":
                    importlib.import_module(module.name)
            code = 0
        else:
            code = importlib.import_module("hrseg.cli").main(words)
    except BaseException as error:
        code = repr(error)
    results.append([words, code, list(events)])
with open(sys.argv[1], "w") as file:
    json.dump(results, file)
"""
RUN = "runs/tiny/latest"
CHECKPOINT = f"{RUN}/checkpoints/best.ckpt"
COMMANDS = f"""\
import
fit --config tiny.yaml
validate --checkpoint {CHECKPOINT}
report {RUN}
predict data --checkpoint {RUN} --polygons --probabilities
fit --resume {RUN} trainer.max_epochs=2
export {RUN} --format onnx --images 1
export {RUN} --format openvino --images 1
validate --checkpoint {RUN}/exported/tiny.onnx
predict data --checkpoint {RUN}/exported/tiny.xml --out other
export {RUN} --format openvino --int8 --images 1 --out int8.xml
export {RUN} --format torch-export --images 0
weights inspect {CHECKPOINT} --config tiny.yaml
weights convert {CHECKPOINT} --to official --out w.pth
data check --config tiny.yaml
data stats --config tiny.yaml
data cache --config tiny.yaml
benchmark model --config tiny.yaml --steps 2
init data
doctor
configs""".splitlines()


@inject(3, len(COMMANDS))
def test_no_import_and_no_command_opens_a_socket(count, tmp_path):
    """Run the commands in one process. The first ones include a training."""
    config = TINY.replace("workers: 0", "workers: 2").replace("out/runs", "runs")
    (tmp_path / "tiny.yaml").write_text(config.replace("loggers: []", "loggers: [tensorboard]"))
    report, calls = tmp_path / "report.json", tmp_path / "calls.txt"
    words = json.dumps([command.split() for command in COMMANDS[:count]])
    python = [sys.executable, "-P", "-c", CHILD, str(report), words]
    strace = shutil.which("strace")  # also records calls of C libraries
    if strace:
        python = [strace, "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", str(calls), *python]
    environment = os.environ | {
        "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    process = subprocess.run(
        python, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert report.is_file(), f"not completed: {process.stderr[-500:]}"
    for command, code, events in json.loads(report.read_text()):
        if events or code != 0:
            yield f"{command}: exit code {code}, {events}: {process.stderr[-500:]}"
    for line in calls.read_text().splitlines() if strace else []:
        if re.search(r"AF_INET|AF_NETLINK|AF_PACKET", line):
            yield line
