"""No import and no command opens a network socket, in Python or in C libraries."""

import json
import os
import re
import shutil
import subprocess
import sys

from tests.faults import inject
from tests.hostile.configs import TINY
from tests.paths import ROOT

# The hook comes first, so that it sees imports too.
CHILD = r"""
import importlib, json, pkgutil, socket, sys
seen, results = [], []
def hook(event, arguments):
    if event.startswith(("socket.", "urllib.", "http.")) and event != "socket.gethostname":
        new = event == "socket.__new__"
        family = arguments[1] if new else getattr(arguments[0], "family", None)
        if family != socket.AF_UNIX:  # data workers pass file descriptors through such sockets
            seen.append(f"{event} {arguments[1:]}"[:300])
sys.addaudithook(hook)
for words in json.loads(sys.argv[2]):
    seen.clear()
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
    results.append([words, code, list(seen)])
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
    """All in one process; an offline training is among the first commands."""
    config = TINY.replace("workers: 0", "workers: 2").replace("out/runs", "runs")
    (tmp_path / "tiny.yaml").write_text(config.replace("loggers: []", "loggers: [tensorboard]"))
    answer, calls = tmp_path / "answer.json", tmp_path / "calls.txt"
    words = json.dumps([command.split() for command in COMMANDS[:count]])
    python = [sys.executable, "-P", "-c", CHILD, str(answer), words]
    strace = shutil.which("strace")  # sees C libraries as well
    if strace:
        python = [strace, "-f", "--seccomp-bpf", "-e", "trace=%network", "-o", str(calls), *python]
    environment = os.environ | {
        "HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    ended = subprocess.run(
        python, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert answer.is_file(), f"not completed: {ended.stderr[-500:]}"
    for command, code, seen in json.loads(answer.read_text()):
        if seen or code != 0:
            yield f"{command}: exit code {code}, {seen}: {ended.stderr[-500:]}"
    for line in calls.read_text().splitlines() if strace else []:
        if re.search(r"AF_INET|AF_NETLINK|AF_PACKET", line):
            yield line
