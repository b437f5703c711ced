"""Hostile artefacts for tests/faults/test_strangers.py, each with the commands that read it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Place:
    given: Path  # the stranger's folder
    outside: Path  # the folder of the canaries
    port: int  # the port of the canaries on 127.0.0.1
    checkpoint: Path  # an intact one of hrseg with three classes
    run: Path  # the folder of a finished training, to be copied
    photo: Path  # an image of the user

    def fill(self, text):
        """Return `text` with the paths for RAN, OUTSIDE and URL."""
        url = f"http://127.0.0.1:{self.port}/hostile"
        text = text.replace("RAN", f"{self.outside}/hostile_code_ran")
        return text.replace("OUTSIDE", str(self.outside)).replace("URL", url)


@dataclass(frozen=True)
class Artefact:
    name: str
    make: Callable[[Place], object]
    # Command lines, or `load FILE`, `load_weights FILE`; {given} and others stand for paths.
    commands: tuple[tuple[str, ...], ...]
    follows: bool = False  # reading through a link is allowed, as in data sets and model caches


def table(kind, makers, commands, follows=False):
    return [Artefact(f"{kind}: {name}", make, commands, follows) for name, make in makers.items()]


def write(name, data):
    """Return a maker of one file; `data` is a text, bytes, or a function of the place."""

    def make(place):
        content = data(place) if callable(data) else data
        raw = place.fill(content).encode() if isinstance(content, str) else content
        (place.given / name).write_bytes(raw)

    return make


def save(change, **options):
    """Return a maker of w.pth: the checkpoint after `change`."""

    def make(place):
        content = torch.load(place.checkpoint, map_location="cpu", weights_only=True)
        change(content, place)
        torch.save(content, place.given / "w.pth", **options)

    return make


def artefacts():
    from tests.hostile import configs, datasets, exported, pictures, runs, tensors, weights

    modules = (weights, tensors, configs, pictures, datasets, exported, runs)
    return [artefact for module in modules for artefact in module.ARTEFACTS]


def laughs(depth=60):
    """Return nested lists that are small in a file and have 2^depth leaves when printed."""
    nested = ["ha"] * 2
    for _ in range(depth):
        nested = [nested, nested]
    return nested


CONTROL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202egnp.\r"  # clears, writes the clipboard, turns text
MARKUP = "[red][link=http://x.invalid]a[/link][/nothing]"
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
FILE_NAMES = {
    "control": CONTROL.replace("\r", "") + "a",
    "markup": MARKUP.replace("/", ";"),
    "script": "<img src=x onerror=alert(1)>",
    "not UTF-8": os.fsdecode(b"a\xff"),
}
