"""Data sets of strangers: classes, lists, links, names of files."""

import json
import os

import numpy as np
from PIL import Image

from tests.hostile import CONTROL, MARKUP, SCRIPT, Artefact
from tests.hostile.pictures import png

CHECK = ("data", "check", "--config", "{folder}", "--workers", "0", "data.root={given}")
INIT = ("init", "{given}", "--out", "out/c.yaml")
FIT = ("fit", "--config", "{folder}", "data.root={given}", "runs=out/runs")
DATA = (CHECK, INIT, FIT)


def _pairs(place, names=("a", "b", "c", "d")):
    rng = np.random.default_rng(0)
    images, masks = place.given / "images", place.given / "masks"
    images.mkdir(exist_ok=True)
    masks.mkdir(exist_ok=True)
    for name in names:
        rgb = Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8))
        rgb.save(os.fsencode(images / f"{name}.png"), "PNG")
        ids = Image.fromarray(rng.integers(0, 2, (40, 40)).astype(np.uint8))
        ids.save(os.fsencode(masks / f"{name}.png"), "PNG")
    (place.given / "classes.txt").write_text("one\ntwo\n")


def _data(change=None, names=("a", "b", "c", "d")):
    def make(place):
        _pairs(place, names)
        if change:
            change(place)

    return make


def _classes(content):
    return _data(lambda place: (place.given / "classes.json").write_text(
        content if isinstance(content, str) else json.dumps(content)))  # fmt: skip


def _list(*lines):
    def change(place):
        text = "\n".join(lines).replace("OUTSIDE", str(place.outside))
        (place.given / "train.txt").write_text(text)
        (place.given / "val.txt").write_text(text)

    return _data(change)


def _linked(target):
    def change(place):
        (place.given / "images/b.png").unlink()
        goal = target.replace("OUTSIDE", str(place.outside))
        (place.given / "images/b.png").symlink_to(goal)

    return _data(change)


def _loop(place):
    (place.given / "images/again").symlink_to(place.given / "images")
    (place.given / "images/x.png").symlink_to(place.given / "images/x.png")


def _collide(place):
    """Four images whose names are the same wherever their folders are joined to them."""
    for folder, name, old in (("a_b", "c", "a"), ("a", "b_c", "b"), ("x_y", "z", "c"),
                              ("x", "y_z", "d")):  # fmt: skip
        for kind in ("images", "masks"):
            (place.given / kind / folder).mkdir(parents=True)
            os.rename(
                place.given / kind / f"{old}.png", place.given / kind / folder / f"{name}.png"
            )


LISTS = (*(f"data.{split}_split={split}.txt" for split in ("train", "val")),)
LISTED = ((*CHECK, *LISTS), (*FIT, *LISTS))

FILENAMES = {
    "control": CONTROL.replace("\r", "") + "a",
    "newline": "a\nhrseg: all is well\nb",
    "markup": MARKUP.replace("/", ";"),
    "script": "<img src=x onerror=alert(1)>",
    "255 bytes": "a" * 251,
    "no UTF-8": b"a\xff".decode("utf-8", "surrogateescape"),
}
CLASSES = {
    "no JSON": "{",
    "deep": "[" * 1_000_000,
    "a huge number": '{"classes": ["a", "b"], "palette": [[' + "9" * 5000 + ",0,0],[0,0,0]]}",
    "numbers": {"classes": [1, float("nan")]},
    "a million names": {"classes": [f"n{i}" for i in range(10**6)]},
    "markup": {"classes": [MARKUP, "[/]"]},
    "script": {"classes": [SCRIPT, "b"]},
    "secrets": {"classes": ["${oc.env:AWS_SECRET_ACCESS_KEY}", "b"]},
}
LINES = {
    "above": ("../outside/secret.png ../outside/secret.png",),
    "absolute": ("OUTSIDE/secret.png\tOUTSIDE/secret.png",),
    "hidden above": ("images/../../outside/secret.png",),
    "NUL": ("a\0.png",),
    "control": (f"{CONTROL}a.png",),
    "a line of 10 MB": ("a" * 10_000_000,),
}
ARTEFACTS = [
    *(Artefact(f"data: file name of {key}", _data(names=("a", "b", "c", name)), DATA)
      for key, name in FILENAMES.items()),
    *(Artefact(f"data: classes of {key}", _classes(value), DATA) for key, value in CLASSES.items()),
    *(Artefact(f"data: list of {key}", _list(*value), LISTED) for key, value in LINES.items()),
    Artefact("data: link to a device", _linked("/dev/zero"), DATA),
    Artefact("data: link to a secret", _linked("OUTSIDE/secret.txt"), DATA, follows=True),
    Artefact("data: links in a circle", _data(_loop), DATA),
    Artefact("data: names that fall together", _data(_collide), DATA),
    Artefact("data: SVG as PNG", _data(lambda place: (
        place.given / "images/b.png").write_bytes(b"<svg/>")), DATA),
    Artefact("data: PNG of 40000 x 40000", _data(lambda place: (
        place.given / "masks/b.png").write_bytes(png((40000, 40000), claimed=True, kind=0))), DATA),
]  # fmt: skip
