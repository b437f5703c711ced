"""The kinds of faults: what is promised about each, and how many are injected."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import Tally

Inject = Callable[[int, Path, int], Tally]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        promise: what holds in spite of it, a sentence of at most 70 characters.
        inject: (count, an empty folder, seed) -> what became of them.
        quick: how many in the tests, seconds of work.
        full: how many in `scripts/torture.py --all`.
    """

    promise: str
    inject: Inject
    quick: int
    full: int


KINDS: dict[str, Kind] = {}
