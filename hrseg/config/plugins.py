"""Schema of the parts that plugins register, and the plugins that a config needs.

A part's arguments are those of its signature. This module sees the parts through
`hrseg.utils.registry.REGISTRIES`, so that it imports neither torch nor any plugin by itself.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any

from hrseg.config.parts import PARTS, model_from_signature, register_part
from hrseg.config.schema import BackboneConfig, Config, DataConfig, HeadConfig, LossConfig
from hrseg.errors import ConfigError
from hrseg.utils.registry import REGISTRIES, load_installed_plugins, load_plugin, plugins_of

Load = Callable[[str | Path, Iterable[str]], Config]
# The other sections have a name alone, as a head has.
_BASES: dict[str, Any] = {
    "data": DataConfig, "losses": LossConfig, "model.backbone": BackboneConfig
}  # fmt: skip
_NOTE = "# needs --plugin "


def with_plugins(load: Load) -> Callable[..., Config]:
    """Let a loader of configs know the parts of plugins, of installed packages if it fails.

    Raises:
        ConfigError: as `load`; or the file needs a plugin that is not loaded.
    """

    @wraps(load)
    def load_with_plugins(name: str | Path, overrides: Iterable[str] = ()) -> Config:
        overrides = tuple(overrides)
        register_plugin_parts()
        try:
            return load(name, overrides)
        except ConfigError as error:
            if load_installed_plugins():
                return load_with_plugins(name, overrides)
            if missing := _missing_plugins(Path(name)):
                raise ConfigError(
                    f"{name} has parts of a plugin that is not loaded.\n"
                    f"Fix: add --plugin {' --plugin '.join(missing)}"
                ) from error
            raise

    return load_with_plugins


def register_plugin_parts() -> None:
    """Add a model to the schema for each part that a plugin has registered.

    Raises:
        ConfigError: a signature that no config can fill.
    """
    for section, registry in REGISTRIES.items():
        for name, plugin in registry.plugins.items():
            if name in PARTS[section]:
                continue
            _check_signature(section, name, registry[name])
            base = _BASES.get(section, HeadConfig)
            model = model_from_signature(base, registry[name], registry.given)
            _make_picklable(model, plugin, section)
            register_part(section, name, model)


def plugin_note(config: Config) -> str:
    """Return the comment for the YAML of a config that has parts of plugins, else ""."""
    used = {
        "data": [config.data.name],
        "model.backbone": [config.model.backbone.name],
        "model.head": [config.model.head.name],
        "losses": [loss.name for loss in config.losses],
        "optimizer": [config.optimizer.name],
        "schedule": [config.schedule.name],
    }
    plugins = plugins_of(used)
    return f"{_NOTE}{plugins}\n" if plugins else ""


def _missing_plugins(path: Path) -> list[str]:
    """Return the plugins that the comment in a config names, without those that are loaded."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    noted = next((line.removeprefix(_NOTE) for line in lines if line.startswith(_NOTE)), "")
    loaded = {Path(plugin).name for registry in REGISTRIES.values()
              for plugin in registry.plugins.values()}  # fmt: skip
    return [p for p in noted.split(" --plugin ") if p and Path(p).name not in loaded]


def _check_signature(section: str, name: str, part: Callable[..., Any]) -> None:
    parameters = set(inspect.signature(part).parameters)
    taken = {"name"} | ({"on", "weight"} if section == "losses" else set())
    problem = ""
    if section == "optimizer" and "lr" not in parameters:
        problem = "has no parameter 'lr', the learning rate"
    elif parameters & taken:
        problem = f"has a parameter {min(parameters & taken)!r}, which the config uses itself"
    if problem:
        raise ConfigError(f"{section}: the part {name!r} {problem}.\nFix: change its signature.")


def _make_picklable(model: Any, plugin: str, section: str) -> None:
    """Let other processes, which know no class that was made here, make the section again."""
    model.__reduce__ = lambda part: (_part, (plugin, section, dict(part)))


def _part(plugin: str, section: str, values: dict[str, Any]) -> Any:
    """Return a section of the config again, in a process that may not have its plugin yet."""
    load_plugin(plugin)
    register_plugin_parts()
    return PARTS[section][values["name"]](**values)
