"""Hostile data sets: classes, lists, links and file names."""

import json
import os

import numpy as np
from PIL import Image

from tests.hostile import FILE_NAMES, MARKUP, SCRIPT, table, write
from tests.hostile.pictures import png

CHECK = ("data", "check", "--config", "{folder}", "--workers", "0", "data.root={given}")
FIT = (
    "fit", "--config", "{folder}", "data.root={given}", "runs=out/runs", "model.weights=null"
)  # fmt: skip
DATA = (CHECK, ("init", "{given}", "--out", "out/c.yaml"), FIT)
SPLITS = ("data.train_split=list.txt", "data.val_split=list.txt")


def _data(change=lambda paths: None, last="d"):
    """Return a function that writes four pairs, the last one with a given name."""

    def make(paths):
        rng = np.random.default_rng(0)
        for kind, shape, ids in (("images", (40, 40, 3), 256), ("masks", (40, 40), 2)):
            (paths.given / kind).mkdir()
            for name in ("a", "b", "c", last):
                picture = Image.fromarray(rng.integers(0, ids, shape, np.uint8))
                picture.save(os.fsencode(paths.given / kind / f"{name}.png"), "PNG")
        (paths.given / "classes.txt").write_text("one\ntwo\n")
        change(paths)

    return make


def _linked(target):
    def change(paths):
        (paths.given / "images/b.png").unlink()
        (paths.given / "images/b.png").symlink_to(paths.fill(target))

    return _data(change)


def _circle(paths):
    (paths.given / "images/again").symlink_to(paths.given / "images")
    (paths.given / "images/x.png").symlink_to(paths.given / "images/x.png")


CLASSES = {
    "deep": "[" * 1_000_000,
    "a million names": json.dumps({"classes": [f"n{i}" for i in range(10**6)]}),
    "markup": json.dumps({"classes": [MARKUP, SCRIPT]}),
    "secrets": '{"classes": ["${oc.env:AWS_SECRET_ACCESS_KEY}", "b"]}',
}
LINES = {
    "above": "../outside/secret.png ../outside/secret.png",
    "hidden above": "images/../../outside/secret.png",
    "NUL": "a\0.png",
}
FILES = {
    **{f"file name of {key}": _data(last=name) for key, name in FILE_NAMES.items()},
    **{f"classes of {key}": _data(write("classes.json", text)) for key, text in CLASSES.items()},
    "link to a device": _linked("/dev/zero"),
    "links in a circle": _data(_circle),
    "PNG of 40000 x 40000": _data(write("masks/b.png", png((40000, 40000), kind=0))),
}
LISTS = {f"list of {key}": _data(write("list.txt", line)) for key, line in LINES.items()}
ARTEFACTS = [
    *table("data", LISTS, ((*CHECK, *SPLITS), (*FIT, *SPLITS))),
    *table("data", FILES, DATA),
    *table("data", {"link to a secret": _linked("OUTSIDE/secret.txt")}, DATA, follows=True),
]
