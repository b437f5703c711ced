"""Hostile artefacts, each with the commands that a user would give it to.

An artefact lies in an empty folder. The files outside it are canaries (tests/watched.py).
tests/faults/test_strangers.py gives the artefacts to the commands.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

Words = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Paths that artefacts use.

    Attributes:
        given: the stranger's folder.
        outside: the folder of the canaries.
        port: the port of the canaries on 127.0.0.1.
        checkpoint: an intact checkpoint of hrseg with three classes.
        run: the run folder of a finished training, to be copied.
        photo: an image of the user.
    """

    given: Path
    outside: Path
    port: int
    checkpoint: Path
    run: Path
    photo: Path

    @property
    def ran(self) -> str:
        """A file that hostile code would create."""
        return str(self.outside / "hostile_code_ran")

    @property
    def url(self) -> str:
        """An address that hostile data refers to."""
        return f"http://127.0.0.1:{self.port}/hostile"

    def fill(self, text: str) -> str:
        """Return `text` with the paths for RAN, OUTSIDE and URL."""
        for word, value in (("RAN", self.ran), ("OUTSIDE", str(self.outside)), ("URL", self.url)):
            text = text.replace(word, value)
        return text


Make = Callable[[Place], object]


@dataclass(frozen=True)
class Artefact:
    """A hostile file or folder.

    Attributes:
        name: the attack.
        make: writes the files.
        commands: command lines, or `load FILE` and `load_weights FILE` for the functions;
            {given}, {photo}, {checkpoint}, {data} stand for paths.
        follows: whether reading through a link is allowed: data sets and model caches use links.
    """

    name: str
    make: Make
    commands: tuple[Words, ...]
    follows: bool = False


def table(kind: str, makers: Mapping[str, Make], commands: tuple[Words, ...]) -> list[Artefact]:
    """Return an artefact for each maker."""
    return [Artefact(f"{kind}: {name}", make, commands) for name, make in makers.items()]


def write(name: str, data: str | bytes | Callable[[Place], str | bytes]) -> Make:
    """Return a maker of one file."""

    def make(place: Place) -> None:
        content = data(place) if callable(data) else data
        raw = place.fill(content).encode() if isinstance(content, str) else content
        (place.given / name).write_bytes(raw)

    return make


def save(change: Callable[[dict, Place], object], **options: bool) -> Make:
    """Return a maker of w.pth: the checkpoint after `change`."""

    def make(place: Place) -> None:
        content = torch.load(place.checkpoint, map_location="cpu", weights_only=True)
        change(content, place)
        torch.save(content, place.given / "w.pth", **options)

    return make


def artefacts() -> list[Artefact]:
    """Return all artefacts."""
    from tests.hostile import configs, datasets, exported, pictures, runs, tensors, weights

    modules = (weights, tensors, configs, pictures, datasets, exported, runs)
    return [artefact for module in modules for artefact in module.ARTEFACTS]


def laughs(depth: int = 60) -> list:
    """Return nested lists that are small in a file and have 2^depth leaves when printed."""
    nested: list = ["ha"] * 2
    for _ in range(depth):
        nested = [nested, nested]
    return nested


CONTROL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202egnp.\r"  # clears, writes the clipboard, turns text
MARKUP = "[red][link=http://x.invalid]a[/link][/nothing]"
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
