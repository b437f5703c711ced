"""Settings, outcomes and process of a check of scripts/gpu_proof."""

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
# Imported once for all checks on a CPU; they import the others.
MODULES = ("checks_resume", "checks_evaluation", "checks_speed", "checks_export")


@dataclass(frozen=True)
class Job:
    """Settings of a check.

    Attributes:
        device: "cuda" or "cpu".
        small: small images and networks.
        folder: an empty folder for files of the check.
        results: entries of earlier checks by name.
    """

    device: str
    small: bool
    folder: Path
    results: Mapping[str, Mapping[str, Any]]


Check = Callable[[Job], Figures]


class Skipped(Exception):
    """A check cannot run on this machine; the message is the reason."""


def require(figures: Figures, condition: bool, message: str) -> None:
    """Set the `error` of the figures if a condition does not hold and none is set."""
    if not condition:
        figures.setdefault("error", message)


def run_in_process(module: str, name: str, job: Job, limit: float) -> Figures:
    """Return the entry of a check, which runs in its own process for at most `limit` seconds.

    A crash, a CUDA error or a timeout affects only this check.
    """
    # A forked process cannot use CUDA if the driver was initialised before.
    context: Any = get_context("forkserver" if job.device == "cpu" else "spawn")
    if job.device == "cpu":
        context.set_forkserver_preload(list(MODULES))
    result, log = job.folder / "result.json", job.folder / "log.txt"
    start = time.perf_counter()
    process = context.Process(target=_run, args=(module, name, job, result, log))
    process.start()
    try:
        while process.is_alive() and not result.is_file() and time.perf_counter() - start < limit:
            process.join(0.1)
        timed_out = process.is_alive()
        if result.is_file():
            process.join(5)
    finally:
        if process.is_alive():
            _kill(process.pid)
        process.join()
    if result.is_file():
        entry: Figures = json.loads(result.read_text())
    else:
        end = f"no result after {limit:.0f} s" if timed_out else f"exit code {process.exitcode}"
        entry = {"error": f"{end}; last output: {_last_line(log)}"}
    failed = {"log": log.read_text(errors="replace")[-4000:]} if "error" in entry else {}
    seconds = round(time.perf_counter() - start, 1)
    return {"ok": "error" not in entry, "seconds": seconds, **entry, **failed}


def _run(module: str, name: str, job: Job, result: Path, log: Path) -> None:
    """Run a check in the new process, and write its entry to the file `result`."""
    os.setsid()  # the parent ends this process with its workers
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    try:
        entry = getattr(import_module(module), name)(job)
    except Skipped as reason:
        entry = {"skipped": str(reason)}
    except Exception as error:
        traceback.print_exc()
        text = next(iter(str(error).splitlines()), "")
        entry = {"error": f"{type(error).__name__}: {text}"[:300]}
    partial = result.with_suffix(".partial")
    partial.write_text(json.dumps(entry))
    partial.replace(result)
    for worker in active_children():
        worker.kill()  # data workers ignore SIGTERM, and multiprocessing would wait for them


def _kill(pid: int) -> None:
    """Kill a process and the processes that it started."""
    for end in (os.killpg, os.kill):  # the group is missing until `setsid`
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "none")
