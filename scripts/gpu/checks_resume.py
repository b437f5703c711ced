"""Exact resume on a device, by `hrseg fit` with the CUDA random state and GradScaler."""

import os
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from checks_training import STEPS, overrides
from job import Figures, Job, require
from torch import Tensor

import hrseg
from hrseg.cli import main as hrseg_main

STOPPED_AT = 6  # step at which the first part of a training is stopped


def resume(job: Job) -> Figures:
    """Stop a training by SIGTERM in the middle, resume it, and compare with a whole training."""
    precision = "16-mixed" if job.device == "cuda" else "bf16-mixed"
    settings = (f"trainer.precision={precision}", "model.head={name: ocr}")
    warned: set[str] = set()
    whole = _fit(job, "whole", warned, *settings)
    with _sigterm_at(STOPPED_AT):
        _fit(job, "parts", warned, *settings, code=143)
    part = torch.load(_checkpoint(job, "parts"), weights_only=True)["global_step"]
    resumed = _fit(job, "parts", warned, "--resume")
    unequal = differences(whole, resumed)
    scaler = whole["MixedPrecision"]
    figures: Figures = {
        "precision": precision, "deterministic": "warn", "stopped_after_step": part,
        "steps": STEPS, "values": len(dict(leaves(whole))), "unequal": unequal[:8],
        "cuda_random_state": whole["random"][0]["cuda"] is not None, "scaler": scaler,
        "nondeterministic_operations": sorted(warned),
        "metrics_equal": _metrics(job, "whole") == _metrics(job, "parts"),
    }  # fmt: skip
    if job.device == "cuda":
        require(figures, figures["cuda_random_state"], "the CUDA random state was not saved")
        require(figures, bool(scaler), "the state of GradScaler was not saved")
    require(figures, 0 < part < STEPS, f"the training was not interrupted, but ended at {part}")
    if unequal:
        again = differences(whole, _fit(job, "again", warned, *settings))
        figures["two_whole_trainings_equal"] = not again
        figures["error"] = f"{len(unequal)} values differ, first {unequal[0]}"
    figures["deterministic_true"] = _with_deterministic_only(job, *settings)
    text = f"{figures['values']} values equal to the bit; deterministic=warn names " + (
        ", ".join(sorted(warned)) or "no operation"
    )
    case = f"Resume after step {part} of {STEPS}, {precision}, OCR head with dropout"
    figures["rows"] = [
        [case, text],
        ["`trainer.deterministic=true`", figures["deterministic_true"]],
    ]
    return figures


def _fit(job: Job, runs: str, warned: set[str], *more: str, code: int = 0) -> dict[str, Any]:
    """Run `hrseg fit`, and return weights, optimizer, schedule, scaler and random states.

    Adds the operations that torch calls nondeterministic to `warned`.
    """
    words = overrides(job, runs, "trainer.deterministic=warn", *more)
    command = ["fit", "--config", "synthetic_tiny", *words]
    if "--resume" in more:
        command = ["fit", "--resume", str(_checkpoint(job, runs).parents[1])]
    with warnings.catch_warnings(record=True, action="always") as messages:
        result = hrseg_main(command)
    if result != code:
        raise RuntimeError(f"`hrseg {' '.join(command)}` returned {result}")
    for message in messages:
        text = str(message.message)
        if "does not have a deterministic implementation" in text:
            warned.add(text.split()[0])
    content = torch.load(_checkpoint(job, runs), weights_only=True, map_location="cpu")
    keys = ("state_dict", "optimizer_states", "lr_schedulers")
    state = {key: content[key] for key in keys}
    return {
        **state,
        "MixedPrecision": content.get("MixedPrecision"),
        "random": content["resume"]["random"],
    }


def _with_deterministic_only(job: Job, *settings: str) -> str:
    """Return the outcome of a training step with `trainer.deterministic=true`."""
    more = (*settings, "trainer.deterministic=true", "trainer.fast_dev_run=true")
    try:
        code = hrseg_main(["fit", "--config", "synthetic_tiny", *overrides(job, "strict", *more)])
    except RuntimeError as error:
        return f"refused: {str(error).partition('.')[0][:150]}"
    return "trains" if code == 0 else f"exit code {code}"


@contextmanager
def _sigterm_at(step: int) -> Iterator[None]:
    """Send SIGTERM to this process during training step `step`, counted from 1."""
    original, calls = hrseg.SegmentationTask.training_step, count(1)

    def counted(self: hrseg.SegmentationTask, *arguments: Any) -> Tensor:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    with patch.object(hrseg.SegmentationTask, "training_step", counted):
        yield


def _checkpoint(job: Job, runs: str) -> Path:
    return (job.folder / runs / "synthetic_tiny" / "latest").resolve() / "checkpoints" / "last.ckpt"


def _metrics(job: Job, runs: str) -> str:
    return (_checkpoint(job, runs).parents[1] / "metrics.csv").read_text()


def differences(first: Any, second: Any) -> list[str]:
    """Return the keys of values that are not equal to the bit."""
    a, b = dict(leaves(first)), dict(leaves(second))
    return [key for key in a | b if not _equal(a.get(key), b.get(key))]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings and sequences with their keys."""
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from leaves(item, f"{key}/{name}".lstrip("/"))
    else:
        yield key, value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)
