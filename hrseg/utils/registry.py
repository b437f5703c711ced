"""Registries: parts by name, built-in or of plugins, with suggestions for misspelt names."""

import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar, cast

from hrseg.errors import ConfigError

T = TypeVar("T")
Entry = TypeVar("Entry", bound=Callable[..., Any])


class Registry(dict[str, T]):
    """Classes and functions by name. Plugins add theirs with the decorator `register`.

    Attributes:
        section: the section of the config that chooses an entry, for example "losses".
        given: arguments that hrseg passes to an entry that has them; no config sets them.
        plugins: the plugin that registered a name; names of hrseg itself are missing.
    """

    def __init__(self, section: str, entries: Mapping[str, T], given: Iterable[str] = ()) -> None:
        """Start with the entries of hrseg itself, and add the registry to REGISTRIES."""
        super().__init__(entries)
        self.section, self.given, self.plugins = section, frozenset(given), dict[str, str]()
        REGISTRIES[section] = self

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Return a decorator that makes a class or function available under a new name."""

        def add(entry: Entry) -> Entry:
            if name in self:
                owner = self.plugins.get(name, "hrseg itself")
                raise ConfigError(
                    f"{self.section}: the name {name!r} is registered already, by {owner}.\n"
                    "Fix: register the part under another name."
                )
            self[name] = cast(T, entry)
            self.plugins[name] = _importing[-1] if _importing else entry.__module__
            return entry

        return add


REGISTRIES: dict[str, Registry[Any]] = {}  # by section of the config, once their room is imported
_OURS = (importlib.__file__, str(Path(__file__).parent.parent))  # frames that messages leave out
_importing: list[str] = []  # the plugin whose import is running
_installed: set[str] = set()  # the group of entry points, once it was loaded


def plugins_of(used: Mapping[str, Iterable[Any]]) -> str | None:
    """Return the plugins of parts (names or specs, by section), joined as after `--plugin`."""
    plugins = {
        REGISTRIES[section].plugins.get(spec if isinstance(spec, str) else str(spec.get("name")))
        for section, specs in used.items()
        for spec in specs
        if section in REGISTRIES
    }
    return " --plugin ".join(sorted(filter(None, plugins))) or None


def load_plugin(plugin: str) -> None:
    """Import a plugin, a `.py` file or a module by name, which registers its parts.

    The folder of a file is added at the end of `sys.path`, so that later processes find it too.
    """
    path, module = Path(plugin).expanduser(), plugin
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"--plugin {plugin}: no file {path.absolute()}.")
        module, folder = path.stem, str(path.absolute().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        importlib.invalidate_caches()
        spec = find_spec(module)
        if spec is None or spec.origin is None or not path.samefile(spec.origin):
            raise ConfigError(
                f"--plugin {plugin}: {module!r} is the name of another module.\n"
                "Fix: rename the file."
            )
    _importing.append(plugin)
    try:
        importlib.import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # whatever the code of the plugin raises
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if not f.filename.startswith(("<frozen importlib", *_OURS))]
        line = f"{own[-1].filename}, line {own[-1].lineno}: " if own else ""
        raise ConfigError(
            f"--plugin {plugin} cannot be imported.\n{line}"
            f"{type(error).__name__}: {error}\nExpected a .py file or an installed module."
        ) from error
    finally:
        _importing.pop()


def load_installed_plugins() -> bool:
    """Import the entry points `hrseg.plugins` once; return whether this call imported any."""
    if _installed:
        return False
    from importlib.metadata import entry_points

    _installed.add("hrseg.plugins")
    points = entry_points(group="hrseg.plugins")
    for point in points:
        load_plugin(point.module)
    return bool(points)


def find(table: Mapping[str, T], name: str, what: str) -> T:
    """Return `table[name]`; of a registry also if an installed package registers it.

    The message of an unknown name contains `what`, the nearest names and all of them.
    """
    if name not in table and isinstance(table, Registry):
        load_installed_plugins()
    if name not in table:
        raise ConfigError(f"unknown {what} {name!r}{did_you_mean(name, table)}")
    return table[name]


def build(
    table: Mapping[str, Callable[..., T]], spec: str | Mapping[str, Any], what: str, **given: Any
) -> T:
    """Call the entry that `spec["name"]` selects with the rest of `spec` as its arguments.

    Args:
        table: names to constructors.
        spec: `{"name": ..., argument: value, ...}`; a bare string is short for `{"name": ...}`.
        what: the word for an entry of this table in messages, for example "loss".
        given: arguments that do not come from the user; passed if the constructor has them.
    """
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{what} {spec} has no 'name'{did_you_mean('', table)}")
    constructor = find(table, name, what)
    known = inspect.signature(constructor).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    settable = [key for key in known if key not in given]
    for argument in arguments:
        if argument not in settable and not open_ended:
            raise ConfigError(
                f"{what} {name!r} takes no {argument!r}{did_you_mean(argument, settable)}"
            )
    return constructor(**arguments, **{key: given[key] for key in given if key in known})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the second half of an error message: the nearest of the known names, then all."""
    names = list(known)
    near = get_close_matches(name, names, n=3)
    hint = f". Did you mean: {', '.join(near)}?" if near else "."
    return f"{hint}\nKnown: {', '.join(names)}"
