"""Where a data set lies, if not at the root that was given."""

from collections.abc import Callable
from pathlib import Path


def suggest_root(root: Path, holds: Callable[[Path], bool]) -> str:
    """Return "Did you mean data.root=...?" for a folder up to two levels away, "" if none is right.

    Args:
        root: the folder that was given.
        holds: whether a folder holds the data set; nothing is suggested if `root` does.
    """
    if holds(root):
        return ""
    # The outer one first: archives that unpack into a folder of their own name nest.
    above, below = (root.parent.parent, root.parent), (*root.glob("*/"), *root.glob("*/*/"))
    near = next((path for path in (*above, *sorted(below)) if holds(path)), None)
    return f"Did you mean data.root={near}?" if near else ""
