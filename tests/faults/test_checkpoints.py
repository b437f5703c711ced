"""Checkpoints under faults: the process killed amid a write, the disk full, the file damaged."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hrseg.checkpoints.integrity import whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import best_checkpoint, checkpoint_at, newest_state
from hrseg.errors import ConfigError
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.utils.files import write_json
from tests.faults import counts

NAMES = ("last", "best")
VALUES = 250_000  # a megabyte
LARGE = 40  # times as much: a small network with its optimiser


@counts(20, 500)
def test_a_kill_during_a_write_leaves_the_last_saved_checkpoint_whole(count, tmp_path):
    """Of two sizes; in one of four processes as on a file system without links."""
    draw, lost, known = random.Random(0), [], dict.fromkeys(NAMES, 0)
    injected = 0
    for name in NAMES:
        save(tmp_path, name, 0)
    for _ in range(20 * count):  # not every kill comes amid a write
        if injected == count:
            break
        size, linked = draw.choice((1, 1, 1, LARGE)), draw.random() < 0.75
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            if not linked:
                os.link = no_links
            try:
                save_for_ever(tmp_path, max(known.values()), writer, size)
            finally:
                os._exit(1)
        os.close(writer)
        heard = os.read(reader, 4096).decode()  # it is at its second save, however busy the machine
        time.sleep(draw.uniform(0, 0.05 if size == 1 else 0.5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as said:
            for line in (heard + said.read()).split("\n")[:-1]:
                name, epoch = line.split()
                known[name] = int(epoch)
        fault = damage(tmp_path, known) or read_otherwise(tmp_path, known)
        lost += [fault] if fault else []
        # A kill between two writes proves nothing.
        injected += bool(fault) or any(tmp_path.glob(".*"))
    assert not lost, "\n".join(lost)
    assert injected == count


def no_links(*_: object) -> None:
    raise PermissionError("Operation not permitted")


def save_for_ever(folder: Path, epoch: int, writer: int, size: int) -> None:
    """Save `last`, and now and then `best` with its scores; tell of each when it is done."""
    while True:
        epoch += 1
        for name in NAMES[: 1 + epoch % 2]:
            save(folder, name, epoch, size)
            os.write(writer, f"{name} {epoch}\n".encode())
        write_json(folder / "scores.json", {"epoch": epoch})


def read_otherwise(folder: Path, known: dict[str, int]) -> str | None:
    """Say where what hrseg would take is not what torch alone has found."""
    for name, epoch in known.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                content = read_checkpoint(whole_checkpoint(folder / f"{name}.ckpt"))
            except ConfigError as error:
                return f"{name}.ckpt: {error}"
        if content["epoch"] < epoch:
            return f"{name}.ckpt: epoch {content['epoch']} would be taken"
    return None


@counts(15, 60)
def test_a_full_disk_is_an_error_and_spares_the_checkpoints_that_are_there(count, tmp_path):
    """On a small file system of its own."""
    draw, lost, known = random.Random(0), [], dict.fromkeys(NAMES, 0)
    mount = ["mount", "-t", "tmpfs", "-o", "size=7m", "hrseg-faults", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("to mount a small file system takes root")
    try:
        for name in NAMES:
            save(tmp_path, name, 0)
        for epoch in range(1, count + 1):
            statistics = os.statvfs(tmp_path)
            free = statistics.f_bavail * statistics.f_frsize
            # Less than a checkpoint's room, but at times none at all.
            left = draw.choice([0, draw.randrange(4096), draw.randrange(4 * VALUES)])
            (tmp_path / "others").write_bytes(bytes(max(free - left, 0)))
            name = draw.choice(NAMES)
            try:
                save(tmp_path, name, epoch)
                fault = f"epoch {epoch} was saved into {left} bytes"
            except ConfigError as error:
                fault = None if "no space left" in str(error) else str(error)
            fault = fault or damage(tmp_path, known) or rest(tmp_path)
            lost += [fault] if fault else []
            (tmp_path / "others").unlink()
            save(tmp_path, name, epoch)  # with room again
            known[name] = epoch
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
    assert not lost, "\n".join(lost)


@counts(25, 300)
def test_instead_of_a_damaged_checkpoint_the_one_before_it_is_read_with_a_warning(count, tmp_path):
    draw, lost = random.Random(0), []
    for number in range(count):
        run = tmp_path / str(number)
        checkpoints = run / "checkpoints"
        for name in NAMES:
            for epoch in (1, 2):
                save(checkpoints, name, epoch)
        name, both = draw.choice(NAMES), draw.random() < 0.3
        what = harm(checkpoints / f"{name}.ckpt", draw)
        if both:
            what += " and " + harm(checkpoints / f"{name}.previous.ckpt", draw)
        if fault := misread(run, name, 0 if both else 1, what, draw):
            lost.append(fault)
        shutil.rmtree(run)
    assert not lost, "\n".join(lost)


def harm(path: Path, draw: random.Random) -> str:
    """Damage a file, one time of two near its beginning or its end; return how."""
    data = bytearray(path.read_bytes())
    size, kind = len(data), draw.randrange(4)
    where = draw.choice(
        (draw.randrange(size),) * 2 + (draw.randrange(900), size - draw.randint(1, 300))
    )
    if kind == 0:
        data[where] ^= 1 << draw.randrange(8)
    elif kind == 1:
        del data[where:]
    elif kind == 2:
        where = where // 4096 * 4096
        data[where : where + 4096] = bytes(len(data[where : where + 4096]))
    path.write_bytes(data)
    if kind == 3:
        path.unlink()
    kinds = ("a flipped bit at", "an end at", "a block of zeros at", "no file, not even")
    return f"{path.name}: {kinds[kind]} {where}"


def misread(run: Path, name: str, epoch: int, what: str, draw: random.Random) -> str | None:
    """Say what hrseg made of a damaged `name`, if neither `epoch` with a word nor an error.

    Epoch 0: an error alone is right. A harm to bytes that nobody reads leaves all values right.
    """
    path = run / "checkpoints" / f"{name}.ckpt"
    ways: list[Callable[[], dict[str, Any]]] = [
        lambda: read_checkpoint(newest_state(run) if name == "last" else best_checkpoint(run)),
        lambda: read_checkpoint(checkpoint_at(path)),
        lambda: DurableCheckpointIO().load_checkpoint(path, weights_only=True),
    ]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            content = draw.choice(ways[:2] if epoch == 0 else ways)()
        except ConfigError as error:
            return f"{what}: {error}" if epoch else None
    if epoch == 0 and name == "best" and content["name"] == "last":
        return None  # both are gone: the run's other checkpoint
    if (content["epoch"], bool(said)) not in ((1, True), (2, False)):
        return f"{what}: epoch {content['epoch']} was read, {len(said)} words were said"
    return content_fault(content)


def save(folder: Path, name: str, epoch: int, size: int = 1) -> None:
    """Save a checkpoint by which its epoch can be told from every value in it."""
    weights = {str(part): torch.full((VALUES,), float(epoch)) for part in range(size)}
    content = {"epoch": epoch, "global_step": 10 * epoch, "name": name, "state_dict": weights}
    DurableCheckpointIO().save_checkpoint(content, folder / f"{name}.ckpt")


def damage(folder: Path, known: dict[str, int]) -> str | None:
    """Say what is missing of what was saved, read by torch alone.

    Where there are no links, a file that is not there yet is the one before it.
    """
    for name, epoch in known.items():
        files = [folder / f"{name}{kind}.ckpt" for kind in ("", ".previous")]
        try:
            content = torch.load(next(file for file in files if file.exists()), weights_only=True)
        except Exception as error:
            return f"{name}.ckpt cannot be read: {error}"
        if content["epoch"] < epoch:
            return f"{name}.ckpt is of epoch {content['epoch']}, {epoch} had been saved"
        if fault := content_fault(content):
            return f"{name}.ckpt: {fault}"
    scores = folder / "scores.json"
    if scores.exists():
        json.loads(scores.read_text())
    return None


def content_fault(content: dict) -> str | None:
    """Say whether the values are not those of the epoch."""
    weights = content["state_dict"]
    whole = weights and all(
        values.shape == (VALUES,) and bool(values.eq(content["epoch"]).all())
        for values in weights.values()
    )
    return None if whole else f"the values of epoch {content['epoch']} are others"


def rest(folder: Path) -> str | None:
    """Say whether something half-written was left."""
    left = [path.name for path in folder.glob(".*")]
    return f"left behind: {left}" if left else None
