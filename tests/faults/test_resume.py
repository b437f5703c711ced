"""Trainings killed or stopped at any moment, resumed: what is left is that of one in one go."""

import random
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.faults import counts
from tests.faults import training as train
from tests.faults.training import Blow, Ended

# Ways to train; together: both heads, every callback that has a state, both places of validation.
LEARNS = ("optimizer.lr=0.02", "data.crop_size=[48,64]", "data.scales=[1,1]")
OCR = "model.head={name: ocr}"
TWO = "data.batch_size=4", "trainer.accumulate_grad_batches=2"
KINDS = {
    "dropout": (OCR, "trainer.val_check_interval=0.5", "ema_decay=0.7", *LEARNS),
    "ema": ("ema_decay=0.7", *LEARNS),
    "accumulated": (OCR, *TWO, "data.photometric=0.5"),
    "by class": ("data.class_uniform=0.5", "early_stopping_patience=1", "optimizer.lr=0.001"),
    "by steps": (
        "trainer.max_epochs=-1", "trainer.max_steps=11", "trainer.val_check_interval=3", *LEARNS,
    ),
    "adamw": (
        "optimizer={name: adamw, lr: 0.002}", "trainer.check_val_every_n_epoch=2",
        OCR, "save_every_minutes=0.001", "trainer.gradient_clip_val=1.0",
    ),
}  # fmt: skip
SIGNALS = (
    signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP,
    signal.SIGKILL,
)  # fmt: skip
CODES = {
    signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGUSR1: 143,
    signal.SIGHUP: 129,
}  # fmt: skip


@counts(2, 36)
def test_an_interrupted_and_resumed_training_equals_an_uninterrupted_one(count, tmp_path):
    """Kill or stop trainings, some twice, and compare every bit that is left."""
    folder = tmp_path
    draw, lost = random.Random(0), []
    train.prepare(folder)
    references: dict[tuple[str, int], Any] = {}
    for number in range(count):
        kind = list(KINDS)[number // 2 % len(KINDS)]
        workers, signum = draw.choice([0, 2]), SIGNALS[number % len(SIGNALS)]
        at = draw.choice(["training_step"] * 3 + ["validation_step"])
        step = draw.randint(1, 11 if at == "training_step" else 6)
        blow = Blow(signum, step, draw.uniform(0, 0.2), at)
        words = (*KINDS[kind], f"data.workers={workers}")
        name = f"{number}: {kind}, {workers} workers, {signum.name} at {at} {step}"
        try:
            if kind not in references:
                references[kind] = reference(folder, kind)
            again = replace(blow, step=draw.randint(1, 4)) if number % 3 == 2 else None
            left = record(folder, f"runs{number}", words, blow, again)
            fault = train.difference(references[kind], left)
        except Failed as failed:
            fault = str(failed)
        if fault:
            lost.append(f"{name}: {fault}")
    assert not lost, "\n".join(lost)


class Failed(Exception):
    """A command ended in another way than it should."""


def reference(folder: Path, kind: str) -> Any:
    """Return what a training leaves that nobody interrupts."""
    runs = folder / f"reference {kind}"
    expect(train.run(train.command(folder, runs, *KINDS[kind]), runs.with_suffix(".log")), 0)
    return train.record_of(train.only_run(runs))


def record(folder: Path, name: str, words: tuple[str, ...], blow: Blow, again: Blow | None) -> Any:
    """Return what a training leaves that is struck, and struck again when it is resumed."""
    runs, log = folder / name, folder / f"{name}.log"
    first = train.command(folder, runs, *words)
    requeued = slurm(folder) if blow.signum == signal.SIGUSR1 else {}
    ended = train.run(first, log, blow, requeued)
    if unstopped(ended, blow):
        expect(ended, 0)
        return train.record_of(train.only_run(runs))
    expect(ended, CODES[signal.Signals(blow.signum)])
    if not list(runs.glob("*/*/checkpoints/last*.ckpt")):
        return resumed(first, log, None, {}, runs)  # killed before the first state was saved
    if requeued:
        said = (folder / "scontrol.log").read_text().splitlines()
        if said[-1] != "requeue 77":
            raise Failed(f"scontrol was told {said[-1]!r}")
        return resumed(first, log, again, {**requeued, "SLURM_RESTART_COUNT": "1"}, runs)
    return resumed(["fit", "--resume", str(train.only_run(runs))], log, again, {}, runs)


def resumed(
    words: list[str], log: Path, again: Blow | None, environment: dict[str, str], runs: Path
) -> Any:
    """Go on until the end; return what is left."""
    ended = train.run(words, log, again, environment)
    if again is not None and not unstopped(ended, again):
        expect(ended, CODES[signal.Signals(again.signum)])
        ended = train.run(words, log, None, environment)
    expect(ended, 0)
    finished = [run for run in runs.glob("*/2*") if (run / "report.html").is_file()]
    return train.record_of(finished[0])


def unstopped(ended: Ended, blow: Blow) -> bool:
    """Tell whether a training was too short to be struck, or at its end when asked to go on later.

    A job that has nothing left to do is not queued again.
    """
    return ended.lingered is None or (blow.signum == signal.SIGUSR1 and ended.code == 0)


def expect(ended: Ended, code: int) -> None:
    """Raise Failed for another exit code, and for processes that are left."""
    if ended.code != code or ended.left or "Traceback" in ended.said:
        said = " | ".join(ended.said.splitlines()[-4:])
        raise Failed(f"exit {ended.code}, expected {code}; left {ended.left}; {said}")


def slurm(folder: Path) -> dict[str, str]:
    """Return the environment of a job; its scontrol stops, as SLURM does, what it queues again."""
    tool = folder / "bin" / "scontrol"
    if not tool.is_file():
        tool.parent.mkdir()
        tool.write_text(
            f'#!/bin/sh\necho "$@" >> "{folder}/scontrol.log"\n(sleep 0.1; kill -TERM $PPID) &\n'
        )
        tool.chmod(0o755)
    return {
        "PATH": f"{tool.parent}:/usr/bin:/bin", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "train",
        "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "1",
    }  # fmt: skip
