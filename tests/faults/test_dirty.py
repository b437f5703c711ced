"""Damaged pairs of images and masks, read by the code of the training and by `data check`."""

import hashlib
import json
import multiprocessing
import os
import pickle
import random
import resource
import sys

import numpy as np
import psutil
import torch

from hrseg.commands._data import check_data
from hrseg.config.loader import load_config
from hrseg.data.checksums import write_manifest
from hrseg.data.datasets.folder import Folder
from hrseg.training.factory import build_data
from hrseg.utils.text import one_line
from tests.faults import inject
from tests.faults.harms import CLASSES, HARMS, NAMED, RIGHT, ROT, make, rotten
from tests.faults.training import forked

PATIENCE = 20.0  # maximum seconds per pair
MEMORY = 2 * 2**30  # maximum bytes allocated by reading


@inject(len(HARMS), 1200)
def test_a_damaged_image_or_mask_is_read_correctly_or_reported_with_its_name(count, tmp_path):
    """Read pairs with `data.on_error: skip`, with and without a manifest, and by `data check`."""
    draw = random.Random(0)
    kinds = [*HARMS] * (count // len(HARMS)) + draw.sample([*HARMS], count % len(HARMS))
    pairs = [make(tmp_path / "data", number, draw, how) for number, how in enumerate(kinds)]
    spoil(pairs, tmp_path / "data")
    process = forked(_read, pairs, tmp_path)  # with limited memory
    process.join(60 + count / 4)
    process.kill()
    process.join()
    pickled, log = tmp_path / "results.pickle", tmp_path / "log"
    assert pickled.is_file(), f"exit code {process.exitcode}: {log.read_text()[-600:]}"
    results = pickle.loads(pickled.read_bytes())
    for pair, bare, item in zip(pairs, results["bare"], results["manifest"], strict=True):
        names = {one_line(str(pair.image)), one_line(str(pair.mask))}
        checked = sorted(names & results["check"].keys())
        wrong = judge(pair, item) or (None if pair.due == ROT else judge(pair, bare))
        if not wrong and bool(item["fault"]) != bool(checked):
            wrong = f"training reports {item['fault']!r}, data check {checked}"
        yield wrong and f"{pair.how}, {names}: {wrong}"


def spoil(pairs, root):
    sums = {}
    for pair in pairs:
        before = {path: digest(path) for path in (pair.image, pair.mask)}
        pair.harm()
        for path in (pair.image, pair.mask):
            small = path.is_file() and path.stat().st_size < 2**30
            new = path not in before or (pair.listed and small)
            sums[path] = digest(path) if new else before[path]
        if pair.due == ROT:
            rotten(pair)
    write_manifest(root / "hrseg.sha256", root, sums.items())


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def judge(pair, item):
    if item["fault"]:
        if not any(one_line(str(path)) in item["fault"] for path in (pair.image, pair.mask)):
            return f"reported without its name: {item['fault']}"
        if item["image"].any() or (item["mask"] != 255).any():
            return "reported, but its pixels are in the batch"
        known = pair.due != ROT or "has changed" in item["fault"]
        return f"refused: {item['fault']}" if pair.due == RIGHT or not known else None
    if pair.due in (NAMED, ROT):
        return "read without an error"
    same = np.array_equal(item["image"], pair.rgb) and np.array_equal(item["mask"], pair.ids)
    return None if same else "read with wrong pixels"


def _read(pairs, folder):
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", 1, closefd=False)
    multiprocessing.set_start_method("fork", force=True)  # workers that import nothing
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY,) * 2)
    files = [(pair.image, pair.mask) for pair in pairs]
    Folder.files = lambda self, split: files
    words = [
        f"data.root={folder / 'data'}", f"data.class_names={list('abcdefgh')[:CLASSES]}",
        f"data.worker_timeout={PATIENCE}", "data.workers=1", "data.on_error=skip",
    ]  # fmt: skip
    manifest = f"data.manifest={folder / 'data' / 'hrseg.sha256'}"
    results = {}
    for name, more in (("bare", []), ("manifest", [manifest])):
        data = build_data(load_config("folder", [*words, *more]))
        data.setup("validate")
        results[name] = [
            {
                "image": batch["image"][0].permute(1, 2, 0).numpy().copy(),
                "mask": batch["mask"][0].numpy().copy(),
                "fault": batch["fault"][0],
            }
            for batch in data.val_dataloader()
        ]
    check_data(load_config("folder", words), ["all"], folder / "check.json", 1, hashes=True)
    split = json.loads((folder / "check.json").read_text())["splits"]["all"]
    results["check"] = {one_line(row["file"]): row["message"] for row in split["faults"]}
    (folder / "results.pickle").write_bytes(pickle.dumps(results))
