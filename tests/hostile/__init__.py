"""Hostile files for tests/faults/test_strangers.py, with the commands that read them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Paths:
    """Paths and the port for the creation of hostile files.

    Attributes:
        given: folder with the hostile files.
        outside: folder with the canary files.
        port: port of the canaries on 127.0.0.1.
        checkpoint: an intact checkpoint with three classes.
        run: the folder of a finished training, to be copied.
        photo: an image of the user.
    """

    given: Path
    outside: Path
    port: int
    checkpoint: Path
    run: Path
    photo: Path

    def fill(self, text):
        """Return `text` after replacing RAN, OUTSIDE and URL."""
        url = f"http://127.0.0.1:{self.port}/hostile"
        text = text.replace("RAN", f"{self.outside}/hostile_code_ran")
        return text.replace("OUTSIDE", str(self.outside)).replace("URL", url)


@dataclass(frozen=True)
class Artefact:
    name: str
    make: Callable[[Paths], object]
    # Command lines, `load FILE` or `load_weights FILE`. {given} and others are replaced by paths.
    commands: tuple[tuple[str, ...], ...]
    follows: bool = False  # whether reading through links is allowed, as in data sets


def table(kind, makers, commands, follows=False):
    return [Artefact(f"{kind}: {name}", make, commands, follows) for name, make in makers.items()]


def write(name, data):
    """Return a function that writes a file; `data` is text, bytes, or a function of the paths."""

    def make(paths):
        content = data(paths) if callable(data) else data
        raw = paths.fill(content).encode() if isinstance(content, str) else content
        (paths.given / name).write_bytes(raw)

    return make


def save(change, **options):
    """Return a function that writes w.pth, the checkpoint after `change`."""

    def make(paths):
        content = torch.load(paths.checkpoint, map_location="cpu", weights_only=True)
        change(content, paths)
        torch.save(content, paths.given / "w.pth", **options)

    return make


def artefacts():
    from tests.hostile import configs, datasets, exported, pictures, runs, tensors, weights

    modules = (weights, tensors, configs, pictures, datasets, exported, runs)
    return [artefact for module in modules for artefact in module.ARTEFACTS]


def laughs(depth=60):
    """Return nested lists with shared parts: small in a file, 2^depth items when printed."""
    nested = ["ha"] * 2
    for _ in range(depth):
        nested = [nested, nested]
    return nested


CONTROL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202egnp.\r"  # clear, clipboard, text direction
MARKUP = "[red][link=http://x.invalid]a[/link][/nothing]"
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
FILE_NAMES = {
    "control": CONTROL.replace("\r", "") + "a",
    "markup": MARKUP.replace("/", ";"),
    "script": "<img src=x onerror=alert(1)>",
    "not UTF-8": os.fsdecode(b"a\xff"),
}
