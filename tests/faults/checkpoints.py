"""Checkpoints under faults: the process killed amid a write, the disk full, the file damaged."""

import json
import os
import random
import signal
import subprocess
import time
import warnings
from pathlib import Path
from unittest import SkipTest

import torch

from hrseg.callbacks import write_json
from hrseg.checkpointing import DurableCheckpointIO
from hrseg.errors import ConfigError
from hrseg.models.weightfile import read_checkpoint
from hrseg.runfolder import best_checkpoint, newest_state
from tests.faults import Tally

NAMES = ("last", "best")
VALUES = 250_000  # a megabyte


def killed(count: int, folder: Path, seed: int) -> Tally:
    """SIGKILL to a process that writes one checkpoint after the other."""
    draw, tally, known = random.Random(seed), Tally(), dict.fromkeys(NAMES, 0)
    for name in NAMES:
        save(folder, name, 0)
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            save_for_ever(folder, max(known.values()), writer)
        os.close(writer)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reader) as said:
            for line in said.read().split("\n")[:-1]:
                name, epoch = line.split()
                known[name] = int(epoch)
        tally.record(lost(folder, known))
    return tally


def save_for_ever(folder: Path, epoch: int, writer: int) -> None:
    """Save `last`, and now and then `best` with its scores; tell of each when it is done."""
    while True:
        epoch += 1
        for name in NAMES[: 1 + epoch % 2]:
            save(folder, name, epoch)
            os.write(writer, f"{name} {epoch}\n".encode())
        write_json(folder / "scores.json", {"epoch": epoch})


def full_disk(count: int, folder: Path, seed: int) -> Tally:
    """Saving with less and less room, on a small file system of its own."""
    draw, tally, known = random.Random(seed), Tally(), dict.fromkeys(NAMES, 0)
    mount = ["mount", "-t", "tmpfs", "-o", "size=7m", "hrseg-faults", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        raise SkipTest("no small file system can be mounted here: that takes root")
    try:
        for name in NAMES:
            save(folder, name, 0)
        for epoch in range(1, count + 1):
            statistics = os.statvfs(folder)
            free = statistics.f_bavail * statistics.f_frsize
            # Less than a checkpoint's room, but at times none at all.
            left = draw.choice([0, draw.randrange(4096), draw.randrange(4 * VALUES)])
            (folder / "others").write_bytes(bytes(max(free - left, 0)))
            name = draw.choice(NAMES)
            try:
                save(folder, name, epoch)
                fault = f"epoch {epoch} was saved into {left} bytes"
            except ConfigError as error:
                fault = None if "no space left" in str(error) else str(error)
            tally.record(fault or lost(folder, known) or rest(folder))
            (folder / "others").unlink()
            save(folder, name, epoch)  # with room again
            known[name] = epoch
    finally:
        subprocess.run(["umount", str(folder)], check=True)
    return tally


def damaged(count: int, folder: Path, seed: int) -> Tally:
    """Flipped bits, lost ends, blocks of zeros, files that are gone."""
    draw, tally = random.Random(seed), Tally()
    for number in range(count):
        run = folder / str(number)
        checkpoints = run / "checkpoints"
        for name in NAMES:
            for epoch in (1, 2):
                save(checkpoints, name, epoch)
        name, both = draw.choice(NAMES), draw.random() < 0.3
        what = harm(checkpoints / f"{name}.ckpt", draw)
        if both:
            what += " and " + harm(checkpoints / f"{name}.previous.ckpt", draw)
        tally.record(misread(run, name, 0 if both else 1, what))
    return tally


def harm(path: Path, draw: random.Random) -> str:
    """Damage a file; return how."""
    data = bytearray(path.read_bytes())
    where, kind = draw.randrange(len(data)), draw.randrange(4)
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


def misread(run: Path, name: str, epoch: int, what: str) -> str | None:
    """Say what hrseg made of a damaged `name`, if neither `epoch` with a word nor an error.

    Epoch 0: an error alone is right.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            path = newest_state(run) if name == "last" else best_checkpoint(run)
            content = read_checkpoint(path)
        except ConfigError as error:
            return f"{what}: {error}" if epoch else None
    if path.stem.partition(".")[0] == "last" and name == "best" and not epoch:
        return None  # both are gone: the run's other checkpoint
    if content["epoch"] == 2 and path.name == f"{name}.ckpt":
        # Bits behind the seal's reach: of the two bytes of its length, say.
        return None if content_fault(content) is None else f"{what}: damage was read in silence"
    if content["epoch"] != epoch or not said:
        return f"{what}: epoch {content['epoch']} was read, {len(said)} words were said"
    return content_fault(content)


def save(folder: Path, name: str, epoch: int) -> None:
    """Save a checkpoint by which its epoch can be told from every value in it."""
    weights = torch.full((VALUES,), float(epoch))
    content = {"epoch": epoch, "state_dict": {"a": weights}}
    DurableCheckpointIO().save_checkpoint(content, folder / f"{name}.ckpt")


def lost(folder: Path, known: dict[str, int]) -> str | None:
    """Say what is missing of what was saved, read by torch alone."""
    for name, epoch in known.items():
        try:
            content = torch.load(folder / f"{name}.ckpt", weights_only=True)
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
    values = content["state_dict"]["a"]
    whole = values.shape == (VALUES,) and bool(values.eq(content["epoch"]).all())
    return None if whole else f"the values of epoch {content['epoch']} are others"


def rest(folder: Path) -> str | None:
    """Say whether something half-written was left."""
    left = [path.name for path in folder.glob(".*")]
    return f"left behind: {left}" if left else None
