"""Config loader: YAML files, overrides, interpolation, and validation against the schema.

The YAML is read untyped, dotted overrides are applied, then every section is checked against its
dataclass in schema.py. Nothing here imports torch, so a typo is answered at once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hrseg.config.plugins import plugin_note, with_plugins
from hrseg.config.protocols import PROTOCOLS, make_protocol
from hrseg.config.schema import (
    OWN_TRAINER_NAMES,
    SECTIONS,
    TRAINER_NAMES,
    WHOLE_TRAINER_NUMBERS,
    Config,
)
from hrseg.errors import ConfigError
from hrseg.utils.registry import did_you_mean, find
from hrseg.utils.text import one_line

_DEPTH = 40  # of lists and sections in a file


@with_plugins
def load_config(name: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Return the checked config that `name` finds, with `key=value` overrides applied.

    The result is an OmegaConf object with the fields of `Config`; interpolations stay unresolved
    until they are read, so that saving it writes them as they were.

    Raises:
        ConfigError: not found, not YAML, an unknown or missing key, a wrong type or value. The
            message names file and line (or the command line), what was expected, and near names.
    """
    path = find_config(name)
    try:
        _refuse_depth(path)
        raw = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML:\n{_first_lines(error)}") from error
    if not isinstance(raw, DictConfig):
        raise ConfigError(f"{path} holds no 'key: value' pairs. See `hrseg configs` for examples.")
    changed = dict(_split_override(override) for override in overrides)
    checker = _Checker(path, list(changed))
    # Before anything is looked up in it: that alone would resolve what stands there.
    checker.refuse_foreign_resolvers(OmegaConf.to_container(raw), "")
    checker.refuse_foreign_resolvers(changed, "")
    _spell_out_names(raw)
    for key, value in changed.items():
        try:
            OmegaConf.update(raw, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, AttributeError, IndexError, TypeError) as error:
            raise ConfigError(f"command line: {key}: {_first_lines(error, 1)}") from error
        _spell_out_names(raw)
    content = cast(dict[str, Any], OmegaConf.to_container(raw))
    checker.refuse_foreign_resolvers(content, "")
    config = checker.typed(Config, content, "")
    checker.check_values(config)
    return cast(Config, config)


def protocol_changes(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the checked fields of the protocol that `inference.key=value` pairs change.

    Raises:
        ConfigError: an unknown key, or a value of another type or out of range.
    """
    # Any whole config lends its other sections to the checks.
    inference = to_dict(load_config("synthetic_tiny", overrides).inference)
    keys = [pair.partition("=")[0] for pair in overrides]
    known = [f"inference.{name}" for name in (*asdict(PROTOCOLS["plain"]), "protocol")]
    for key in keys:
        if key not in known:
            raise ConfigError(f"command line: {key} plays no part in a prediction.")
    return {key: inference[key] for key in (key.removeprefix("inference.") for key in keys)}


def find_config(name: str | Path) -> Path:
    """Return the file that `name` means: a path, else a shipped config; `.yaml` may be left out.

    Raises:
        ConfigError: neither exists.
    """
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    shipped = shipped_configs()
    return find(shipped, str(name).removesuffix(".yaml"), "config (no such file, none shipped):")


def shipped_configs() -> dict[str, Path]:
    """Return the configs that come with hrseg, by name."""
    folder = Path(str(files("hrseg.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def to_yaml(config: Config) -> str:
    """Return the config as YAML that `load_config` reads back to the same config."""
    return plugin_note(config) + OmegaConf.to_yaml(cast(DictConfig, config))


def to_dict(section: Any) -> dict[str, Any]:
    """Return a section of a config as plain values, interpolations resolved, lists as tuples."""
    plain = OmegaConf.to_container(section, resolve=True)
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in cast(dict[str, Any], plain).items()
    }


class _Checker:
    """Turns untyped sections into typed ones; knows where a key was written."""

    def __init__(self, path: Path, overridden: Sequence[str]) -> None:
        self.path = path
        self.overridden = overridden
        self.lines: dict[str, int] = {}
        self._index(yaml.compose(path.read_text(encoding="utf-8")), "")

    def error(self, key: str, message: str) -> ConfigError:
        """Return an error that says where `key` was written."""
        return ConfigError(f"{self.where(key)}: {one_line(key)}: {message}")

    def where(self, key: str) -> str:
        """Return the place that `key` was written at."""
        if any(re.match(re.escape(written) + r"[.\[]", f"{key}.") for written in self.overridden):
            return "command line"
        line = self.lines.get(key)
        return f"{self.path}{f', line {line}' if line else ''}"

    def typed(self, schema: type, node: Any, key: str) -> DictConfig:
        """Return `node` as a structured config of `schema`."""
        if not isinstance(node, dict):
            raise self.error(key, f"expected 'key: value' pairs, got {node!r}.")
        config: DictConfig = OmegaConf.structured(schema)
        known = {field.name: field for field in fields(schema)}
        for raw_name, value in node.items():
            # YAML 1.1 reads a bare `on` as true.
            name = "on" if raw_name is True else str(raw_name)
            full_key = f"{key}.{name}".lstrip(".")
            if name not in known:
                raise self.error(full_key, f"unknown key{did_you_mean(name, known)}")
            try:
                typed = self._value(known[name].type, value, full_key)
                OmegaConf.update(config, name, typed, merge=False)
            except OmegaConfBaseException as error:
                hint = f".\nExpected {_kind(known[name].type)}: {known[name].metadata['help']}"
                if get_origin(known[name].type) is Literal:
                    hint = did_you_mean(str(value), get_args(known[name].type))
                raise self.error(full_key, f"cannot be {value!r}{hint}") from error
        return config

    def _value(self, kind: Any, value: Any, key: str) -> Any:
        if key == "model.backbone" and isinstance(value, str) and "${" not in value:
            if value not in SECTIONS[key]:
                hint = did_you_mean(value, SECTIONS[key])
                raise self.error(key, f"cannot be {value!r}{hint}")
            return value
        if key == "losses" and isinstance(value, list):
            return [self._named(key, item, f"{key}[{index}]") for index, item in enumerate(value)]
        if key in SECTIONS:
            return self._named(key, value, key)
        if is_dataclass(kind):
            return self.typed(cast(type, kind), value, key)
        if key == "trainer" and isinstance(value, dict):
            self._check_trainer(value)
        return value

    def _named(self, section: str, node: Any, key: str) -> DictConfig:
        names = SECTIONS[section]
        if not isinstance(node, dict) or not isinstance(node.get("name"), str):
            raise self.error(key, f"needs a 'name', one of: {', '.join(names)}")
        if node["name"] not in names:
            hint = did_you_mean(node["name"], names)
            raise self.error(f"{key}.name", f"unknown name {node['name']!r}{hint}")
        return self.typed(names[node["name"]], node, key)

    def _check_trainer(self, node: Mapping[str, Any]) -> None:
        for name, value in node.items():
            if name in OWN_TRAINER_NAMES:
                raise self.error(f"trainer.{name}", "hrseg sets this one itself; remove the key.")
            whole = value is None or isinstance(value, int) or "${" in str(value)
            if name in WHOLE_TRAINER_NUMBERS and not whole:
                raise self.error(f"trainer.{name}", f"is {value!r}; expected a whole number.")
            if name not in TRAINER_NAMES:
                hint = did_you_mean(str(name), TRAINER_NAMES).partition("\n")[0]
                raise self.error(
                    f"trainer.{name}",
                    f"pytorch_lightning.Trainer takes no {name!r}{hint}",
                )

    def refuse_foreign_resolvers(self, node: Any, key: str) -> None:
        """Raise on any resolver but `${oc.env:HRSEG_...}`: a config must not read secrets."""
        if isinstance(node, dict):
            for name, value in node.items():
                self.refuse_foreign_resolvers(value, f"{key}.{name}".lstrip("."))
        elif isinstance(node, list):
            for index, value in enumerate(node):
                self.refuse_foreign_resolvers(value, f"{key}[{index}]")
        elif isinstance(node, str):
            # What is left after the two plain forms could build the name of a resolver.
            left = re.sub(r"\$\{(oc\.env:HRSEG_[A-Z0-9_]+(,[^${}]*)?|[\w.\[\]]+)\}", "", node)
            if "${" in left:
                raise self.error(
                    key, f"{node} is not allowed, only ${{key}} and ${{oc.env:HRSEG_...}}."
                )

    def check_values(self, config: DictConfig) -> None:
        """Raise on what is missing, on interpolations that do not resolve, on numbers too small."""
        try:
            missing = sorted(OmegaConf.missing_keys(config))
            OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{self.path}: {_first_lines(error, 2)}") from error
        if missing:
            raise self.error(missing[0], f"is required: {_help(config, missing[0])}.")
        self._check_numbers(config, "")
        if not _names_a_folder(config.name):
            said = "names a folder: no slash, no dot in front, no control, at most 200 bytes."
            raise self.error("name", f"{config.name!r} {said}")
        scales = list(config.data.scales)
        steps = (scales[1] - scales[0]) / scales[2] if len(scales) == 3 else 1.0
        if len(scales) not in (2, 3) or scales[0] > scales[1] or abs(steps - round(steps)) > 1e-6:
            raise self.error(
                "data.scales",
                f"is {scales}; expected (first, last, step) with whole steps from first to last, "
                "e.g. [0.5, 2.1, 0.1], or (low, high).",
            )
        try:
            make_protocol(config.inference.protocol, to_dict(config.inference))
        except ConfigError as error:
            key = re.search(r"inference\.\w+", str(error))
            raise ConfigError(f"{self.where(key[0] if key else 'inference')}: {error}") from None
        if not config.losses:
            raise self.error("losses", "is empty; expected at least one, e.g. [cross_entropy].")

    def _check_numbers(self, config: DictConfig, key: str) -> None:
        for item in fields(_schema(config)):
            full_key, value = f"{key}.{item.name}".lstrip("."), config[item.name]
            if full_key == "losses":
                for index, loss in enumerate(value):
                    self._check_numbers(loss, f"losses[{index}]")
            elif isinstance(value, DictConfig) and is_dataclass(_schema(value)):
                self._check_numbers(value, full_key)
            low, high = item.metadata["at_least"], item.metadata["at_most"]
            if low is None or value is None:
                continue
            numbers = [value] if isinstance(value, int | float) else list(value)
            if not numbers or min(numbers) < low or (high is not None and max(numbers) > high):
                limits = f"at least {low}" + (f", at most {high}" if high is not None else "")
                raise self.error(full_key, f"is {value}; expected {limits}.")

    def _index(self, node: yaml.Node | None, key: str) -> None:
        """Remember the line of every key."""
        if node is not None:
            self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                full_key = f"{key}.{name.value}".lstrip(".")
                self.lines[full_key] = name.start_mark.line + 1
                self._index(value, full_key)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._index(value, f"{key}[{index}]")


def _refuse_depth(path: Path) -> None:
    """Raise YAMLError where lists and sections lie so deep that readers written in C crash."""
    depth = 0
    for event in yaml.parse(path.read_text(encoding="utf-8"), yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEPTH:
            raise yaml.YAMLError(f"its sections lie more than {_DEPTH} deep: {event.start_mark}")


def _names_a_folder(name: str) -> bool:
    short = len(name.encode("utf-8", "replace")) <= 200
    return short and one_line(name) == name and re.fullmatch(r"(?!\.)[^/\\]+", name) is not None


def _spell_out_names(raw: DictConfig) -> None:
    """Write `{name: sgd}` where a named section is a bare `sgd`, so that overrides reach in."""
    for key in set(SECTIONS) - {"model.backbone"}:
        parent, _, name = key.rpartition(".")
        section = OmegaConf.select(raw, parent) if parent else raw
        if isinstance(section, DictConfig) and OmegaConf.is_interpolation(section, name):
            continue  # resolved, it would lie in the saved config
        node = OmegaConf.select(raw, key, throw_on_resolution_failure=False)
        if isinstance(node, str):
            OmegaConf.update(raw, key, {"name": node})
        elif isinstance(node, ListConfig):
            items = [{"name": item} if isinstance(item, str) else item for item in node]
            OmegaConf.update(raw, key, items, merge=False)


def _split_override(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"{override!r} is no override. Expected key=value, e.g. data.batch_size=4"
        )
    try:
        return key, OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"command line: {key}: {value!r} is not a YAML value.") from error


def _help(config: DictConfig, key: str) -> str:
    parent, _, name = key.rpartition(".")
    section = OmegaConf.select(config, parent) if parent else config
    return next(
        str(item.metadata["help"]) for item in fields(_schema(section)) if item.name == name
    )


def _schema(section: DictConfig) -> Any:
    return OmegaConf.get_type(section)


def _kind(annotation: Any) -> str:
    """Return a type as a user reads it."""
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    return re.sub(r"\w+\.", "", name)


def _first_lines(error: Exception, count: int = 3) -> str:
    return "\n".join(line.strip() for line in str(error).splitlines()[:count]).rstrip(".")
