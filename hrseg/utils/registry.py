"""Registry lookups: entries by name, with suggestions for misspelt ones."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeVar

from hrseg.errors import ConfigError

T = TypeVar("T")


def find(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`.

    Raises:
        ConfigError: no such name; the message names `what`, the nearest names and all of them.
    """
    if name in table:
        return table[name]
    raise ConfigError(f"unknown {what} {name!r}{did_you_mean(name, table)}")


def build(
    table: Mapping[str, Callable[..., T]], spec: str | Mapping[str, Any], what: str, **given: Any
) -> T:
    """Call the entry that `spec["name"]` selects with the rest of `spec` as its arguments.

    Args:
        table: names to constructors.
        spec: `{"name": ..., argument: value, ...}`; a bare string is short for `{"name": ...}`.
        what: the word for an entry of this table in messages, for example "loss".
        given: arguments that do not come from the user.

    Raises:
        ConfigError: no such name, or an argument that the constructor does not take.
    """
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    if "name" not in arguments:
        raise ConfigError(f"{what} {arguments} has no 'name'{did_you_mean('', table)}")
    name = arguments.pop("name")
    constructor = find(table, name, what)
    known = inspect.signature(constructor).parameters
    for argument in arguments:
        if argument not in known:
            raise ConfigError(
                f"{what} {name!r} takes no {argument!r}{did_you_mean(argument, known)}"
            )
    return constructor(**arguments, **given)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the second half of an error message: the nearest of the known names, then all."""
    names = list(known)
    near = get_close_matches(name, names, n=3)
    hint = f". Did you mean: {', '.join(near)}?" if near else "."
    return f"{hint}\nKnown: {', '.join(names)}"
