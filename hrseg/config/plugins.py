"""Schema of the parts of plugins, and the plugins that a config needs.

The options of a part are the parameters of its signature. This module finds the parts in
`hrseg.utils.registry.REGISTRIES`. It imports neither torch nor, by itself, any plugin.
"""

import inspect
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from hrseg.config.data_schema import DataConfig
from hrseg.config.parts import PARTS, model_from_signature
from hrseg.config.schema import BackboneConfig, Config, HeadConfig, LossConfig
from hrseg.errors import ConfigError
from hrseg.utils.registry import REGISTRIES, load_plugin, plugins_of

# Base models by section. The models of the other sections have only a name, as HeadConfig.
_BASES: dict[str, Any] = {
    "data": DataConfig, "losses": LossConfig, "model.backbone": BackboneConfig
}  # fmt: skip
_NOTE = "# needs --plugin "


def register_plugin_parts() -> None:
    """Add a model to the schema for each part that a plugin has registered."""
    for section, registry in REGISTRIES.items():
        for name, plugin in registry.plugins.items():
            if name in PARTS[section]:
                continue
            _check_signature(section, name, registry[name])
            base = _BASES.get(section, HeadConfig)
            model: Any = model_from_signature(base, registry[name], registry.given)
            # Other processes do not have this class. To unpickle it, they load the plugin.
            model.__reduce__ = lambda part, origin=(plugin, section): (_part, (*origin, dict(part)))
            PARTS[section][name] = model


def plugin_note(config: Config) -> str:
    """Return the YAML comment with the plugins of a config, or "" without plugins."""
    sections = {section: attrgetter(section)(config) for section in PARTS}
    specs = {
        key: part if isinstance(part, list | tuple) else [part] for key, part in sections.items()
    }
    plugins = plugins_of({key: map(dict, parts) for key, parts in specs.items()})
    return f"{_NOTE}{plugins}\n" if plugins else ""


def missing_plugins(path: Path) -> list[str]:
    """Return the plugins in the comment of a config, without the loaded ones."""
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    noted = next((line.removeprefix(_NOTE) for line in lines if line.startswith(_NOTE)), "")
    loaded = {Path(plugin).name for registry in REGISTRIES.values()
              for plugin in registry.plugins.values()}  # fmt: skip
    return [p for p in noted.split(" --plugin ") if p and Path(p).name not in loaded]


def _check_signature(section: str, name: str, part: Callable[..., Any]) -> None:
    parameters = set(inspect.signature(part).parameters)
    reserved = {"name", "on", "weight"} if section == "losses" else {"name"}
    if conflicts := parameters & reserved:
        fault = f"has a parameter {min(conflicts)!r}, which the config uses itself"
        expected = f"no parameter {min(conflicts)!r}. Fix: rename the parameter."
    elif section == "optimizer" and "lr" not in parameters:
        fault = "has no parameter 'lr', the learning rate"
        expected = "a parameter 'lr'. Fix: add the parameter."
    else:
        return
    raise ConfigError(f"{section}: the part {name!r} {fault}.\nExpected: {expected}")


def _part(plugin: str, section: str, values: dict[str, Any]) -> Any:
    load_plugin(plugin)
    register_plugin_parts()
    return PARTS[section][values["name"]](**values)
