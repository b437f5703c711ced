"""Files of strangers who mean harm, each with the commands that a user would give it to.

An artefact is made below an empty folder; what it points to are canaries (tests/watched.py). What
must not happen, and how a command may end, tests/faults/test_strangers.py says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Words = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """Where an artefact is made, and what it may use.

    Attributes:
        given: the stranger's folder.
        outside: the canaries' folder.
        port: the canaries', of 127.0.0.1.
        checkpoint: a whole one of hrseg, of three classes.
        run: a run folder of a whole training, to be copied.
        photo: an image of the user's own.
    """

    given: Path
    outside: Path
    port: int
    checkpoint: Path
    run: Path
    photo: Path

    @property
    def ran(self) -> str:
        """A file that hostile code would make."""
        return str(self.outside / "hostile_code_ran")

    @property
    def url(self) -> str:
        """An address that nobody has to ask."""
        return f"http://127.0.0.1:{self.port}/hostile"


@dataclass(frozen=True)
class Artefact:
    """A hostile file, or a folder of them.

    Attributes:
        name: what it tries.
        make: writes it.
        commands: words of command lines, or `load FILE`, `load_weights FILE` for the functions;
            {given}, {photo}, {checkpoint}, {data} stand for paths.
        follows: whether a link that the user unpacked may be followed, to read: data sets and
            caches of models are made of links.
    """

    name: str
    make: Callable[[Place], object]
    commands: tuple[Words, ...]
    follows: bool = False


def artefacts() -> list[Artefact]:
    """Return all of them."""
    from tests.hostile import configs, datasets, exported, pictures, runs, tensors, weights

    modules = (weights, tensors, configs, pictures, datasets, exported, runs)
    found = [artefact for module in modules for artefact in module.ARTEFACTS]
    assert len({artefact.name for artefact in found}) == len(found)
    return found


CONTROL = "\x1b[2J\x1b]52;c;aGk=\x07\x9b31m\u202egnp.\r"  # clears, writes the clipboard, turns text
MARKUP = "[red][link=http://x.invalid]a[/link][/nothing]"
SCRIPT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
