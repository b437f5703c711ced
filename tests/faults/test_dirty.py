"""Dirty data: image and mask pairs, each harmed in one way, read as training reads them."""

import hashlib
import json
import os
import pickle
import random
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hrseg.commands._data import check_data
from hrseg.config.loader import load_config
from hrseg.data.checksums import write_manifest
from hrseg.data.datasets.folder import Folder
from hrseg.training.factory import build_data
from hrseg.utils.text import one_line
from tests.faults import counts
from tests.faults.harms import CLASSES, HARMS, NAMED, RIGHT, ROT, SIZE, Pair, make, rotten
from tests.faults.training import forked

PATIENCE = 20.0  # seconds for a pair
MEMORY = 2 * 2**30  # bytes that reading may take beyond what the process has
Item = dict[str, Any]


@counts(60, 1200)
def test_a_harmed_image_or_mask_is_read_right_or_named_with_its_fault(count, tmp_path):
    """Harm each of `count` pairs in one way.

    They are read by the validation loader under `data.on_error: skip`, with a manifest and without,
    and by `data check --hash`, in a process of its own that has little memory.
    """
    draw, lost = random.Random(0), []
    kinds = [*HARMS] * (count // len(HARMS)) + draw.sample([*HARMS], count % len(HARMS))
    made = [make(tmp_path / "data", number, draw, how) for number, how in enumerate(kinds)]
    spoil(made, tmp_path / "data")
    found = in_a_process(made, tmp_path)
    assert not isinstance(found, str), found
    for pair, bare, item in zip(made, found["bare"], found["manifest"], strict=True):
        names = {one_line(str(pair.image)), one_line(str(pair.mask))}
        checked = sorted(names & found["check"].keys())
        wrong = judge_rot(pair, item, bare) if pair.due == ROT else judge(pair, bare)
        wrong = wrong or (judge(pair, item) if pair.due != ROT else None)
        if not wrong and bool(item["fault"]) != bool(checked):
            wrong = f"training says {item['fault']!r}, data check {checked}"
        if wrong:
            lost.append(f"{pair.how}, {names}: {wrong}")
    assert not lost, "\n".join(lost)


def spoil(made: Sequence[Pair], root: Path) -> None:
    """Do the harms; write the manifest of what the files were before, or were meant to become."""
    sums: dict[Path, str] = {}
    for pair in made:
        before = {path: digest(path) for path in (pair.image, pair.mask)}
        HARMS[pair.how](pair)
        files = (pair.image, pair.mask)
        sums |= {path: before.get(path) or digest(path) for path in files}
        if pair.due == ROT:
            rotten(pair)
        elif pair.noted:
            sums |= {
                path: digest(path)
                for path in files
                if path.is_file() and os.path.getsize(path) < 2**30
            }
    write_manifest(root / "hrseg.sha256", root, sums.items())


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judge(pair: Pair, item: Item) -> str | None:
    """Say what is wrong with what became of a pair."""
    if item["fault"]:
        if not any(one_line(str(path)) in item["fault"] for path in (pair.image, pair.mask)):
            return f"not named: {item['fault']}"
        if item["image"].any() or (item["mask"] != 255).any():
            return "named, and something is in its place"
        return f"refused: {item['fault']}" if pair.due == RIGHT else None
    if pair.due == NAMED:
        return "was read in silence"
    image, mask = item["image"], item["mask"]
    if image.shape != pair.rgb.shape or not np.array_equal(mask, pair.ids):
        return "another size or other ids were read in silence"
    off = int(np.abs(image.astype(int) - pair.rgb).max())
    return f"colours are off by {off}, in silence" if off > pair.near else None


def judge_rot(pair: Pair, item: Item, bare: Item) -> str | None:
    """Without a manifest only the size and the mask are certain; with it every bit is."""
    if "has changed" not in item["fault"] or one_line(str(pair.image)) not in item["fault"]:
        return f"the manifest found nothing: {item['fault']!r}"
    return None if bare["fault"] or bare["image"].shape[:2] == SIZE else "another size was read"


def in_a_process(made: Sequence[Pair], folder: Path) -> dict[str, Any] | str:
    """Return what a process reads, or what became of that."""
    out = folder / "found.pickle"
    began = time.monotonic()
    process = forked(_read, made, folder, out)
    process.join(60 + len(made) / 4)
    hangs = process.is_alive()
    process.kill()
    process.join()
    if hangs or process.exitcode or not out.is_file():
        said = (folder / "log").read_text(errors="replace")[-600:]
        took = time.monotonic() - began
        return f"exit code {process.exitcode} after {took:.0f} s, hangs: {hangs}: {said}"
    return pickle.loads(out.read_bytes())


def _read(made: Sequence[Pair], folder: Path, out: Path) -> None:
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", 1, closefd=False)
    torch.set_num_threads(1)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
    files = [(pair.image, pair.mask) for pair in made]
    Folder.files = lambda self, split: files  # type: ignore[method-assign]  # whatever pairs
    words = [
        f"data.root={folder / 'data'}", f"data.class_names={list('abcdefgh')[:CLASSES]}",
        f"data.worker_timeout={PATIENCE}", "data.workers=1", "data.on_error=skip",
    ]  # fmt: skip
    manifest = f"data.manifest={folder / 'data' / 'hrseg.sha256'}"
    found: dict[str, Any] = {}
    for name, more in (("bare", []), ("manifest", [manifest])):
        data = build_data(load_config("folder", [*words, *more]))
        data.setup("validate")
        found[name] = [_plain(batch) for batch in data.val_dataloader()]
    check_data(load_config("folder", words), ["all"], folder / "check.json", 1, hashes=True)
    split = json.loads((folder / "check.json").read_text())["splits"]["all"]
    found["check"] = {one_line(row["file"]): row["message"] for row in split["faults"]}
    out.write_bytes(pickle.dumps(found))


def _plain(batch: Item) -> Item:
    image, mask = batch["image"][0].permute(1, 2, 0).numpy().copy(), batch["mask"][0].numpy().copy()
    return {"image": image, "mask": mask, "fault": batch["fault"][0]}
