"""SIGTERM, SIGINT and SIGHUP to commands: message, exit code, time limit and complete files."""

import random
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

import torch

from hrseg.checkpoints.integrity import state_of
from hrseg.checkpoints.runs import newest_state
from tests.faults import inject
from tests.faults import training as train
from tests.faults.training import Blow

SOON = 10.0  # seconds
RESUME = "to continue: hrseg fit --resume"
HALF_WRITTEN = (".partial-*", ".masks", ".metrics.csv")


@dataclass(frozen=True)
class Case:
    folder: Path
    signum: int
    draw: random.Random
    trained: Path

    @property
    def log(self):
        return self.folder / "log"

    def fit(self, *pairs):
        endless = ("trainer.max_epochs=1000", "trainer.num_sanity_val_steps=0")
        return train.command(self.folder.parent, self.folder / "runs", *endless, *pairs)

    def wrong(self, words, message, step, **how):
        ended = train.run(words, self.log, Blow(self.signum, step, **how))
        return self.misbehaved(ended, message)

    def misbehaved(self, ended, message):
        *_, last = ended.output.strip().splitlines() or [""]
        wrong = {
            f"exit code {ended.code}": ended.code != 128 + self.signum,
            f"processes are left: {ended.left}": ended.left,
            f"it took {ended.seconds} s": ended.seconds is None or ended.seconds > SOON,
            "a traceback": "Traceback" in ended.output,
            "another message": not last.startswith("hrseg: stopped") or message not in last,
        }
        return next((f"{fault}; {last}" for fault, present in wrong.items() if present), None)

    def unsaved(self, step):
        """Return the error in the saved state of a training stopped at `step` or later."""
        path = newest_state(train.only_run(self.folder / "runs"))
        saved = int(torch.load(path, weights_only=True)["global_step"])
        if state_of(path) != "whole" or path.name != "last.ckpt" or saved < step:
            return f"{path} is {state_of(path)}, at step {saved}, expected {step}"
        output = self.log.read_text() if self.log.is_file() else ""
        wrong = " after step " in output and f" after step {saved};" not in output
        return f"the state is of step {saved}: {output[-200:]}" if wrong else None


@inject(2, 32)
def test_a_signal_stops_a_command_within_ten_seconds_with_its_state_saved(count, tmp_path):
    """Send signals at random moments of `fit`, `validate` and `predict`."""
    draw = random.Random(0)
    train.prepare(tmp_path)
    first = train.command(tmp_path, tmp_path / "trained", "trainer.max_epochs=1")
    train.run(first, tmp_path / "trained.log")
    trained = train.only_run(tmp_path / "trained")
    for number in range(count):
        name = list(CASES)[number % len(CASES)]
        signum = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        case = Case(tmp_path / str(number), signum, draw, trained)
        case.folder.mkdir()
        fault = CASES[name](case)
        folders = (case.folder, trained)
        left = [path for folder in folders for p in HALF_WRITTEN for path in folder.rglob(p)]
        yield (fault or left) and f"{number}: {signum.name} {name}: {fault}; left: {left}"


def training(case):
    """Stop `fit` after the current batch. Half of the signals also go to the data workers."""
    words = case.fit(f"data.workers={case.draw.choice([0, 2])}")
    step, delay = case.draw.randint(1, 9), case.draw.uniform(0, 0.2)
    to_all = case.draw.random() < 0.5
    return case.wrong(words, RESUME, step, delay=delay, all=to_all) or case.unsaved(step)


def validating(case):
    """Stop a validation of `fit`. The state before the validation is already saved."""
    step = case.draw.randint(1, 3)
    return case.wrong(case.fit(), RESUME, step, at="validation_step") or case.unsaved(4)


def twice(case):
    """Stop `fit` twice. The second signal ends a long batch immediately."""
    ended = train.run(case.fit(), case.log, Blow(case.signum, 6, again=1.5, linger=8.0))
    slow = ended.seconds and ended.seconds > 6 and f"it took {ended.seconds:.1f} s"
    return slow or case.misbehaved(ended, f"at once; {RESUME}") or case.unsaved(4)


def checking(case):
    """Stop `fit` before the training, which leaves no run folder."""
    words, delay = (
        train.command(case.folder.parent, case.folder / "runs"),
        case.draw.uniform(0, 0.2),
    )
    fault = case.wrong(words, "stopped", 1, delay=delay, at="check", linger=0.3)
    left = list(case.folder.glob("runs/*/*"))
    return fault or (left and f"a run is left: {left}")


def scoring(case):
    """Stop `validate`, which leaves no folder with scores."""
    checkpoint = str(case.trained / "checkpoints" / "best.ckpt")
    words = ["validate", "--checkpoint", checkpoint, f"data.workers={case.draw.choice([0, 2])}"]
    fault = case.wrong(words, "stopped", case.draw.randint(1, 3), at="validation_step")
    left = list(case.trained.glob("validate/*"))
    return fault or (left and f"left: {left}")


def predicting(case):
    """Stop `predict`. The written masks are complete, and `--resume` writes the others."""
    out, images = case.folder / "out", case.folder.parent / "camvid" / "train"
    words = ["predict", str(images), "--checkpoint", str(case.trained), "--out", str(out)]
    step, delay = case.draw.randint(1, 8), case.draw.uniform(0, 0.03)
    fault = case.wrong(words, "stopped", step, delay=delay, at="segment", linger=0.1)
    again = train.run([*words, "--resume"], case.log)
    resumed = again.code == 0 and len(list(out.glob("masks/*.png"))) == train.TRAIN
    return fault if resumed else f"resumed: {again}"


def two(case):
    """Stop one of two processes. Both save and end after the same batch."""
    words = case.fit("trainer.devices=2", "data.batch_size=4")
    at = case.draw.choice(["training_step", "training_step", "validation_step"])
    step = case.draw.randint(3, 9) if at == "training_step" else case.draw.randint(1, 2)
    blows = [Blow(case.signum, step, case.draw.uniform(0, 0.1), at), None]
    case.draw.shuffle(blows)
    port, logs = free_port(), [case.folder / "log0", case.folder / "log1"]
    starts = [train.start(words, logs[i], blows[i], torchrun(i, port)) for i in range(2)]
    ends = [train.wait(*pair) for pair in zip(starts, logs, strict=True)]
    ends[0].seconds = ends[0].seconds or ends[1].seconds
    if ends[1].code != 128 + case.signum or ends[1].left or "Traceback" in ends[1].output:
        return f"the second process: {ends[1]}"
    saved = step if at == "training_step" else 2
    return case.misbehaved(ends[0], RESUME) or case.unsaved(saved)


CASES = {
    "to fit": training,
    "to one of two processes": two,
    "to fit that validates": validating,
    "to fit that checks the data": checking,
    "to validate": scoring,
    "to predict": predicting,
    "to fit, twice": twice,
}


def torchrun(rank, port, processes=2):
    world = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    return {
        **world, "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port():
    """Return a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]
