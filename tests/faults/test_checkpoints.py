"""Checkpoints after a kill during a write, on a full disk, and in damaged files."""

import multiprocessing
import os
import random
import shutil
import subprocess
import time
import warnings
from unittest.mock import Mock

import pytest
import torch

from hrseg.checkpoints.integrity import whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import best_checkpoint, checkpoint_at, newest_state
from hrseg.errors import ConfigError
from hrseg.training.checkpointing import DurableCheckpointIO
from tests.faults import inject
from tests.faults.harms import block_of_zeros, flipped_bit, truncated

NAMES = ("last", "best")
VALUES = 250_000  # one megabyte
PARTS = (slice(None), slice(None), slice(900), slice(-300, None))  # damaged parts of a file
LARGE = 40  # size factor of a small network with its optimizer


@inject(12, 500)
def test_a_kill_during_a_write_leaves_the_last_saved_checkpoint_whole(count, tmp_path):
    """Use two sizes, and in a quarter of the cases a file system without hard links."""
    draw, injected, epochs = random.Random(0), 0, dict.fromkeys(NAMES, 0)
    folder, log = tmp_path / "checkpoints", tmp_path / "saved.txt"
    for name in NAMES:
        save(folder, name, 0)
    while injected < count:
        size, linked = draw.choice((1, 1, 1, LARGE)), draw.random() < 0.75
        log.write_text("")
        arguments = (folder, log, max(epochs.values()), size, linked)
        writer = multiprocessing.get_context("fork").Process(target=save_forever, args=arguments)
        writer.start()
        while not log.stat().st_size:  # wait for the second save
            assert writer.is_alive()
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05 if size == 1 else 0.5))
        writer.kill()
        writer.join()
        for line in log.read_text().splitlines():
            name, epoch = line.split()
            epochs[name] = int(epoch)
        fault = lost(folder, epochs)
        # A kill between two writes leaves no partial file, and is not counted.
        injected += bool(fault) or any(folder.glob(".*"))
        yield fault


def save_forever(folder, log, epoch, size, linked):
    """Save checkpoints until the process is killed, and log completed saves."""
    if not linked:
        os.link = Mock(side_effect=PermissionError)
    while True:
        epoch += 1
        for name in NAMES[: 1 + epoch % 2]:
            save(folder, name, epoch, size)
            with log.open("a") as file:
                file.write(f"{name} {epoch}\n")


@inject(15, 60)
def test_a_full_disk_is_an_error_and_existing_checkpoints_stay_intact(count, tmp_path):
    draw, epochs = random.Random(0), dict.fromkeys(NAMES, 0)
    mount = ["mount", "-t", "tmpfs", "-o", "size=7m", "hrseg-faults", str(tmp_path)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root is required to mount a small file system")
    try:
        for name in NAMES:
            save(tmp_path, name, 0)
        for epoch in range(1, count + 1):
            # Free bytes: fewer than a checkpoint, sometimes none.
            left = draw.choice([0, draw.randrange(4096), draw.randrange(4 * VALUES)])
            free = shutil.disk_usage(tmp_path).free
            (tmp_path / "others").write_bytes(bytes(max(free - left, 0)))
            name = draw.choice(NAMES)
            try:
                save(tmp_path, name, epoch)
                fault = f"epoch {epoch} was saved into {left} bytes"
            except ConfigError as error:
                fault = "" if "no space left" in str(error) else str(error)
            yield fault or lost(tmp_path, epochs) or " ".join(map(str, tmp_path.glob(".*")))
            (tmp_path / "others").unlink()
            save(tmp_path, name, epoch)  # with enough space
            epochs[name] = epoch
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@inject(25, 300)
def test_the_previous_checkpoint_replaces_a_damaged_one_with_a_warning(count, tmp_path):
    draw = random.Random(0)
    for number in range(count):
        run = tmp_path / str(number)
        for name in NAMES:
            for epoch in (1, 2):
                save(run / "checkpoints", name, epoch)
        name, both = draw.choice(NAMES), draw.random() < 0.3
        files = (name, f"{name}.previous")[: 1 + both]
        harms = [damage(run / "checkpoints" / f"{file}.ckpt", draw) for file in files]
        fault = wrong_choice(run, name, both, draw)
        yield fault and f"{name}, {harms}: {fault}"
        shutil.rmtree(run)


def damage(path, draw):
    """Damage a file, often near its start or end, and return a description."""
    harm, part = draw.choice([truncated, flipped_bit, block_of_zeros, None]), draw.choice(PARTS)
    data = path.read_bytes()
    start, stop, _ = part.indices(len(data))
    piece = bytearray(data[part])
    if harm is None:
        path.unlink()
        return "missing"
    harm(piece, draw)
    path.write_bytes(data[:start] + piece + (b"" if harm is truncated else data[stop:]))
    return f"{harm.__name__} in {part}"


def wrong_choice(run, name, both, draw):
    """Read a damaged checkpoint, and return the error unless the previous epoch is read.

    A warning must accompany the previous epoch. If both epochs are damaged, a ConfigError is
    correct. Damage to unused bytes is harmless.
    """
    path = run / "checkpoints" / f"{name}.ckpt"
    newest = newest_state if name == "last" else best_checkpoint
    readers = [
        lambda: read_checkpoint(newest(run)),
        lambda: read_checkpoint(checkpoint_at(path)),
        lambda: DurableCheckpointIO().load_checkpoint(path, weights_only=True),
    ]
    with warnings.catch_warnings(record=True, action="always") as messages:
        try:
            content = draw.choice(readers[:2] if both else readers)()
        except ConfigError as error:
            return None if both else str(error)
    if both and name == "best" and content["name"] == "last":
        return None  # the other checkpoint of the run
    if (content["epoch"], bool(messages)) not in ((1, True), (2, False)):
        return f"epoch {content['epoch']} was read with {len(messages)} warnings"
    return other_values(content)


def save(folder, name, epoch, size=1):
    weights = {str(part): torch.full((VALUES,), float(epoch)) for part in range(size)}
    content = {"epoch": epoch, "global_step": 10 * epoch, "name": name, "state_dict": weights}
    DurableCheckpointIO().save_checkpoint(content, folder / f"{name}.ckpt")


def lost(folder, epochs):
    """Return the first checkpoint older than its last completed save, read by torch and hrseg.

    Without hard links, a checkpoint may be missing if the previous one exists.
    """
    for name, epoch in epochs.items():
        files = [folder / f"{name}{kind}.ckpt" for kind in ("", ".previous")]
        try:
            first = torch.load(next(file for file in files if file.exists()), weights_only=True)
            with warnings.catch_warnings(action="ignore"):
                second = read_checkpoint(whole_checkpoint(files[0]))
        except Exception as error:
            return f"{name}.ckpt cannot be read: {error}"
        for content in (first, second):
            if content["epoch"] < epoch or other_values(content):
                return f"{name}.ckpt contains epoch {content['epoch']}, expected {epoch}"
    return None


def other_values(content):
    weights = content["state_dict"].values()
    whole = all(len(part) == VALUES and part.eq(content["epoch"]).all() for part in weights)
    return None if whole and weights else f"wrong values for epoch {content['epoch']}"
