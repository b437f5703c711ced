"""Trainings killed just before and just after a file takes the place of another."""

import json
import os
import random
import signal
from pathlib import Path
from typing import Any

import torch

from tests.faults import counts
from tests.faults import training as train

LEARNS = ("optimizer.lr=0.02", "data.scales=[1,1]", "ema_decay=0.3")
BESTS = ("best.ckpt", "best.previous.ckpt")


@counts(1, 48)
def test_a_kill_between_any_two_files_leaves_best_and_scores_that_agree(count, tmp_path):
    """Kill a training at one replacement after the other; resume it."""
    folder = tmp_path
    draw, lost = random.Random(0), []
    train.prepare(folder)
    list_of = folder / "replacements.txt"
    done = fit(folder, folder / "reference", list_of)
    assert done.code == 0, done.said
    reference = train.record_of(train.only_run(folder / "reference"))
    replacements = list_of.read_text().split()
    windows = [(number, after) for number in range(len(replacements)) for after in (False, True)]
    draw.shuffle(windows)
    for index in range(count):
        number, after = windows[index % len(windows)]
        runs = folder / f"runs{index}"
        ended = fit(folder, runs, None, (number, after))
        what = f"{'after' if after else 'before'} {replacements[number]}, file {number}"
        fault = f"exit {ended.code}" if ended.code != -signal.SIGKILL else left_wrong(runs)
        fault = fault or resumed_wrong(folder, runs, reference)
        if fault:
            lost.append(f"{what}: {fault}")
    assert not lost, "\n".join(lost)


def fit(
    folder: Path, runs: Path, list_of: Path | None, window: tuple[int, bool] | None = None
) -> train.Ended:
    """Train in a process of its own that lists its replacements, or dies at one."""
    words, log = train.command(folder, runs, *LEARNS), runs.with_suffix(".log")
    return train.wait(train.forked(_watched, words, str(log), list_of, window), log)


def _watched(
    words: list[str], log: str, list_of: Path | None, window: tuple[int, bool] | None
) -> None:
    replace, number = os.replace, 0

    def watched(source: Any, target: Any) -> None:
        nonlocal number
        if list_of is not None:
            with list_of.open("a") as file:
                file.write(f"{Path(target).name}\n")
        if window == (number, False):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
        if window == (number, True):
            os.kill(os.getpid(), signal.SIGKILL)
        number += 1

    os.replace = watched
    train._command(words, log, None, {})


def left_wrong(runs: Path) -> str | None:
    """Say what is wrong with the best after the kill: scores.json may be one write ahead."""
    [run] = [path for path in runs.glob("camvid_w18_small/2*") if not path.is_symlink()]
    found = [score_of(run / "checkpoints" / name) for name in BESTS]
    scores = run / "scores.json"
    said = json.loads(scores.read_text()) if scores.is_file() else None
    if found[0] is None:
        # The first best is written after its scores.
        return None if said is None or said["epoch"] == 0 else "scores, and no best"
    if said is None or said["miou"] < max(filter(None, found)) - 1e-6:
        return f"the best scores {found}, scores.json says {said and said['miou']}"
    return None


def score_of(path: Path) -> float | None:
    """Return the score that a checkpoint says, read by torch alone; None: no file."""
    if not path.is_file():
        return None
    callbacks = torch.load(path, weights_only=True)["callbacks"]
    [said] = [state for key, state in callbacks.items() if "val/miou" in key]
    return float(said["best_model_score"])


def resumed_wrong(folder: Path, runs: Path, reference: dict[str, Any]) -> str | None:
    """Say where a run that is gone on with ends otherwise than one in one go."""
    run, log = train.only_run(runs), runs.with_suffix(".log")
    words = ["fit", "--resume", str(run)]
    if not any((run / "checkpoints").glob("last*.ckpt")):  # killed before the first was there
        runs = runs.with_name(f"{runs.name}-again")
        words = train.command(folder, runs, *LEARNS)
    ended = train.run(words, log)
    if ended.code:
        return f"resumed: exit {ended.code}: {ended.said.splitlines()[-2:]}"
    return train.difference(reference, train.record_of(train.only_run(runs)))
