"""Bitwise equality of interrupted, resumed trainings and uninterrupted ones."""

import json
import os
import random
import signal
from dataclasses import replace
from functools import cache
from itertools import count as numbers_from
from pathlib import Path

import torch

from tests.faults import inject
from tests.faults import training as train
from tests.faults.training import Blow

# The kinds cover both heads, each callback with state, and validation by epochs and steps.
LEARNS = ("optimizer.lr=0.02", "data.scales=[1,1]")
LARGE = (*LEARNS, "data.crop_size=[48,64]")
OCR = "model.head={name: ocr}"
KINDS = {
    "dropout": (OCR, "trainer.val_check_interval=0.5", "ema_decay=0.7", *LARGE),
    "ema": ("ema_decay=0.7", *LARGE),
    "accumulated": (
        OCR, "data.batch_size=4", "trainer.accumulate_grad_batches=2", "data.photometric=0.5",
        "data.augment=[vflip,rotate,noise,coarse_dropout]", "losses=[focal,tversky]",
    ),
    "by class": ("data.class_uniform=0.5", "early_stopping_patience=1", "optimizer.lr=0.001"),
    "by steps": (
        "trainer.max_epochs=-1", "trainer.max_steps=11", "trainer.val_check_interval=3", *LARGE,
    ),
    "adamw": (
        "optimizer={name: adamw, lr: 0.002}", "trainer.check_val_every_n_epoch=2",
        OCR, "schedule=cosine", "save_every_minutes=0.001", "trainer.gradient_clip_val=1.0",
    ),
}  # fmt: skip
KILL, REQUEUE = signal.SIGKILL, signal.SIGUSR1
SIGNALS = (KILL, signal.SIGTERM, KILL, signal.SIGINT, REQUEUE, signal.SIGHUP, KILL)
CODES = {signum: 128 + signum for signum in SIGNALS} | {KILL: -9, REQUEUE: 143}


class Failed(Exception):
    """Unexpected exit of a command."""


@inject(1, 36)
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one(count, tmp_path):
    draw = random.Random(0)
    train.prepare(tmp_path)

    @cache
    def reference(kind):
        runs = tmp_path / f"reference {kind}"
        words = train.command(tmp_path, runs, *KINDS[kind])
        return finished(train.run(words, runs.with_suffix(".log")), runs)

    for number in range(count):
        kind = list(KINDS)[number // 2 % len(KINDS)]
        workers, signum = draw.choice([0, 2]), SIGNALS[number % len(SIGNALS)]
        at = draw.choice(["training_step"] * 3 + ["validation_step"])
        step = draw.randint(1, 11 if at == "training_step" else 6)
        blow = Blow(signum, step, draw.uniform(0, 0.2), at)
        again = replace(blow, step=draw.randint(1, 4)) if number % 3 == 2 else None
        runs = tmp_path / f"runs{number}"
        words = train.command(tmp_path, runs, *KINDS[kind], f"data.workers={workers}")
        try:
            fault = train.difference(reference(kind), interrupted(words, runs, blow, again))
        except Failed as failed:
            fault = str(failed)
        case = f"{number}: {kind}, {workers} workers, {signum.name} at {at} {step}"
        yield fault and f"{case}: {fault}"


def interrupted(words, runs, blow, again):
    """Return the record of a training interrupted by `blow`, and after the resume by `again`."""
    log = runs.with_suffix(".log")
    environment = slurm(runs.parent) if blow.signum == REQUEUE else {}
    ended = train.run(words, log, blow, environment)
    if unstopped(ended, blow):
        return finished(ended, runs)
    expect(ended, CODES[blow.signum])
    if not list(runs.glob("*/*/checkpoints/last*.ckpt")):
        again, environment = None, {}  # killed before the first checkpoint
    elif environment:
        calls = (runs.parent / "scontrol.log").read_text().splitlines()
        if calls[-1] != "requeue 77":
            raise Failed(f"scontrol was called with {calls[-1]!r}")
        environment["SLURM_RESTART_COUNT"] = "1"
    else:
        words = ["fit", "--resume", str(train.only_run(runs))]
    ended = train.run(words, log, again, environment)
    if again is not None and not unstopped(ended, again):
        expect(ended, CODES[again.signum])
        ended = train.run(words, log, None, environment)
    return finished(ended, runs)


def unstopped(ended, blow):
    """Return whether a training ended before the signal, or needed no requeue."""
    return ended.seconds is None or (blow.signum == REQUEUE and ended.code == 0)


def expect(ended, code):
    if ended.code != code or ended.left or "Traceback" in ended.output:
        last = " | ".join(ended.output.splitlines()[-4:])
        raise Failed(f"exit {ended.code}, expected {code}; left {ended.left}; {last}")


def finished(ended, runs):
    expect(ended, 0)
    [run] = [path.parent for path in runs.glob("*/2*/report.html")]
    return train.record_of(run)


def slurm(folder):
    """Return the environment of a SLURM job, with a scontrol that stops the requeued job."""
    tool, calls = folder / "bin" / "scontrol", folder / "scontrol.log"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\necho "$@" >> "{calls}"\n(sleep 0.1; kill -TERM $PPID) &\n')
    tool.chmod(0o755)
    zeros = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
    return dict.fromkeys(zeros, "0") | {
        "PATH": f"{tool.parent}:/usr/bin:/bin", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "77", "SLURM_NTASKS_PER_NODE": "1",
    }  # fmt: skip


@inject(1, 48)
def test_a_kill_between_two_file_writes_leaves_consistent_best_and_scores(count, tmp_path):
    """Kill trainings directly before and after the replacement of a file, and resume them."""
    train.prepare(tmp_path)
    names, runs = tmp_path / "replacements.txt", tmp_path / "reference"
    reference = finished(fit(tmp_path, runs, names), runs)
    replacements = names.read_text().split()
    kills = [(number, after) for number in range(len(replacements)) for after in (False, True)]
    random.Random(0).shuffle(kills)
    for index in range(count):
        number, after = kills[index % len(kills)]
        runs = tmp_path / f"runs{index}"
        ended = fit(tmp_path, runs, Path(os.devnull), (number, after))
        try:
            expect(ended, -KILL)
            fault = disagreement(train.only_run(runs))
            fault = fault or train.difference(reference, resumed(tmp_path, runs))
        except Failed as failed:
            fault = str(failed)
        case = f"{'after' if after else 'before'} {replacements[number]}, file {number}"
        yield fault and f"{case}: {fault}"


def fit(folder, runs, names, kill=None):
    """Train in a new process, which logs the names of replaced files and is killed at `kill`."""
    words, log = train.command(folder, runs, *LEARNS, "ema_decay=0.3"), runs.with_suffix(".log")
    return train.wait(train.forked(_watched, words, log, names, kill), log)


def _watched(words, log, names, kill):
    replace_file, numbers = os.replace, numbers_from()

    def watched(source, target):
        number = next(numbers)
        with names.open("a") as file:
            file.write(f"{Path(target).name}\n")
        if kill == (number, False):
            os.kill(os.getpid(), KILL)
        replace_file(source, target)
        if kill == (number, True):
            os.kill(os.getpid(), KILL)

    os.replace = watched
    train.run_command(words, log)


def disagreement(run):
    """Return an inconsistency of best.ckpt and scores.json, which may be one write newer."""
    best = []
    for path in (run / "checkpoints" / name for name in ("best.ckpt", "best.previous.ckpt")):
        if path.is_file():
            callbacks = torch.load(path, weights_only=True)["callbacks"]
            [state] = [state for key, state in callbacks.items() if "val/miou" in key]
            best.append(float(state["best_model_score"]))
    path = run / "scores.json"
    scores = json.loads(path.read_text()) if path.is_file() else None
    if not (run / "checkpoints" / "best.ckpt").is_file():  # written after the first scores
        return None if scores is None or scores["epoch"] == 0 else "scores without best.ckpt"
    if scores is None or scores["miou"] < max(best) - 1e-6:
        return f"best.ckpt has mIoU {best}, scores.json has {scores and scores['miou']}"
    return None


def resumed(folder, runs):
    """Return the record of a resumed run, or of a new run if no checkpoint exists."""
    run = train.only_run(runs)
    if not any((run / "checkpoints").glob("last*.ckpt")):
        again = runs.with_name(f"{runs.name}-again")
        return finished(fit(folder, again, Path(os.devnull)), again)
    return finished(train.run(["fit", "--resume", str(run)], runs.with_suffix(".log")), runs)
