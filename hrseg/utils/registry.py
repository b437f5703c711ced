"""Registries of parts by name, built-in or of plugins, with suggestions for unknown names."""

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
    """Classes and functions by name. Plugins add entries with the decorator `register`.

    Attributes:
        section: the config section that selects an entry, for example "losses".
        given: names of the parameters that hrseg passes itself; no config sets them.
        plugins: the plugin of each registered name; names of hrseg itself are missing.
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
                    "Expected: a new name. Fix: register the part under another name."
                )
            self[name] = cast(T, entry)
            self.plugins[name] = _importing[-1] if _importing else entry.__module__
            return entry

        return add


REGISTRIES: dict[str, Registry[Any]] = {}  # by config section, after the import of their package
_OURS = (importlib.__file__, str(Path(__file__).parent.parent))  # frames omitted in messages
_importing: list[str] = []  # the plugins during their import
_installed: set[str] = set()  # the group of entry points, after its import


def plugins_of(used: Mapping[str, Iterable[Any]]) -> str | None:
    """Return the plugins of parts (names or specs, by section), joined by `--plugin`, or None."""
    plugins = {
        REGISTRIES[section].plugins.get(spec if isinstance(spec, str) else str(spec.get("name")))
        for section, specs in used.items()
        for spec in specs
        if section in REGISTRIES
    }
    return " --plugin ".join(sorted(filter(None, plugins))) or None


def load_plugin(plugin: str) -> None:
    """Import a plugin, a `.py` file or a module name, which registers its parts.

    The folder of a file is appended to `sys.path`, so that later processes find it too.

    Raises:
        ConfigError: the plugin is missing, or its import raises an error.
    """
    path, module = Path(plugin).expanduser(), plugin
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(
                f"--plugin {plugin}: {path.absolute()} does not exist.\n"
                "Expected: a .py file, or the name of an installed module. Fix: --plugin FILE.py"
            )
        module, folder = path.stem, str(path.absolute().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        importlib.invalidate_caches()
        spec = find_spec(module)
        if spec is None or spec.origin is None or not path.samefile(spec.origin):
            raise ConfigError(
                f"--plugin {plugin}: {module!r} is the name of another module.\n"
                "Expected: a unique name. Fix: rename the file."
            )
    _importing.append(plugin)
    try:
        importlib.import_module(module)
    except ConfigError:
        raise
    except Exception as error:  # any error in the code of the plugin
        frames = traceback.extract_tb(error.__traceback__)
        foreign = [f for f in frames if not f.filename.startswith(("<frozen importlib", *_OURS))]
        line = f"{foreign[-1].filename}, line {foreign[-1].lineno}: " if foreign else ""
        raise ConfigError(
            f"--plugin {plugin} cannot be imported.\n{line}"
            f"{type(error).__name__}: {error}\nExpected: a .py file or an installed module."
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


def find(table: Mapping[str, T], name: str, kind: str) -> T:
    """Return `table[name]`; for a registry, also the entries of installed packages.

    Raises:
        ConfigError: an unknown name. The message contains `kind`, the nearest and all names.
    """
    if name not in table and isinstance(table, Registry):
        load_installed_plugins()
    if name not in table:
        raise ConfigError(f"unknown {kind} {name!r}{did_you_mean(name, table)}")
    return table[name]


def build(
    table: Mapping[str, Callable[..., T]], spec: str | Mapping[str, Any], kind: str, **given: Any
) -> T:
    """Call the entry `spec["name"]` with the rest of `spec` as its arguments.

    Args:
        table: constructors by name.
        spec: `{"name": ..., argument: value, ...}`; a bare string is short for `{"name": ...}`.
        kind: word for an entry of this table in messages, for example "loss".
        given: arguments of hrseg itself; passed if the constructor has these parameters.

    Raises:
        ConfigError: an unknown name or argument.
    """
    arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = arguments.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"{kind} {spec} has no 'name'{did_you_mean('', table)}")
    constructor = find(table, name, kind)
    known = inspect.signature(constructor).parameters
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())
    settable = [key for key in known if key not in given]
    for argument in arguments:
        if argument not in settable and not open_ended:
            raise ConfigError(
                f"{kind} {name!r} has no argument {argument!r}{did_you_mean(argument, settable)}"
            )
    return constructor(**arguments, **{key: given[key] for key in given if key in known})


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest names, and all known names."""
    names = list(known)
    near = get_close_matches(name, names, n=3)
    hint = f". Did you mean: {', '.join(near)}?" if near else "."
    return f"{hint}\nKnown: {', '.join(names)}"
