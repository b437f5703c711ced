"""Config loader: YAML files, overrides, interpolation, and validation against the schema.

OmegaConf reads the YAML, applies overrides and resolves interpolation. Pydantic validates the
result. This module does not import torch, so that an invalid config is reported at once.
"""

import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from hrseg.config import hints
from hrseg.config.plugins import missing_plugins, plugin_note, register_plugin_parts
from hrseg.config.protocols import Protocol, make_protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.utils.registry import load_installed_plugins
from hrseg.utils.text import one_line
from hrseg.utils.validation import Key, key_text, shown

_DEPTH = 40  # largest nesting of lists and sections in a file


def load_config(name: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Return the validated config of a file or a shipped name, with `key=value` overrides.

    Interpolations are resolved; `to_yaml` writes them as in the source. Plugins of installed
    packages are imported if the config is invalid without them.

    Raises:
        ConfigError: a missing file, invalid YAML, an unknown or missing key, an invalid value, or a
            missing plugin. The message names file and line, or the command line.

    Example:
        >>> config = load_config("camvid_w18", ["data.root=/data/camvid", "data.batch_size=4"])
        >>> config.data.batch_size, config.model.backbone.name
        (4, 'hrnet_w18')
    """
    overrides = tuple(overrides)
    register_plugin_parts()
    try:
        return _load(find_config(name), overrides)
    except ConfigError as error:
        if load_installed_plugins():
            return load_config(name, overrides)
        if missing := missing_plugins(Path(name)):
            raise ConfigError(
                f"{name} has parts of a missing plugin.\n"
                f"Expected: the plugin of each part. Fix: add --plugin {' --plugin '.join(missing)}"
            ) from error
        raise


def protocol_changes(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the validated fields of the protocol that `inference.key=value` pairs change."""
    # Any complete config supplies the other sections.
    inference = to_dict(load_config("synthetic_tiny", overrides).inference)
    changes = {}
    for key in (pair.partition("=")[0] for pair in overrides):
        section, _, name = key.partition(".")
        if section != "inference" or name not in ("protocol", *Protocol.model_fields):
            raise ConfigError(
                f"command line: {key} does not affect a prediction.\n"
                f"Expected: fields of the protocol, e.g. inference.flip=true. Fix: remove {key}."
            )
        changes[name] = inference[name]
    return changes


def find_config(name: str | Path) -> Path:
    """Return the file at a path, or else of a shipped config; `.yaml` is optional."""
    for path in (Path(name), Path(f"{name}.yaml")):
        if path.is_file():
            return path
    shipped = shipped_configs()
    stem = str(name).removesuffix(".yaml")
    if stem not in shipped:
        raise ConfigError(hints.no_config(str(name), list(shipped)))
    return shipped[stem]


def shipped_configs() -> dict[str, Path]:
    """Return the files of the shipped configs by name."""
    folder = Path(str(files("hrseg"))) / "configs"
    if not folder.is_dir():  # editable install: configs/ is beside the package
        folder = folder.parents[1] / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def to_yaml(config: Config) -> str:
    """Return the config as YAML that `load_config` reads back to the same config."""
    return plugin_note(config) + dump(unresolved(config))


def unresolved(config: Config) -> dict[str, Any]:
    """Return the values of a config; unchanged values keep their `${...}`."""
    values: dict[str, Any] = _unresolved(config.model_dump(), *config._source)
    return values


def dump(values: dict[str, Any]) -> str:
    """Return plain values as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(values))


def to_dict(section: BaseModel) -> dict[str, Any]:
    """Return the fields of a section by name."""
    return dict(section)


def _load(path: Path, overrides: Sequence[str]) -> Config:
    raw, root = _read(path)
    changed = dict(_split_override(override) for override in overrides)
    source = _Source(path, root, list(changed))
    # Before any other step, because reading a value of OmegaConf resolves it.
    source.refuse_foreign_resolvers(OmegaConf.to_container(raw), ())
    source.refuse_foreign_resolvers(changed, ())
    for key, value in changed.items():
        try:
            # For `optimizer.lr=1`, expand the short `optimizer: sgd` to `optimizer: {name: sgd}`.
            section = key.rpartition(".")[0]
            steps = [
                int(step) if step.isdigit() else step for step in re.findall(r"[^.[\]]+", section)
            ]
            name = _at(OmegaConf.to_container(raw), tuple(steps)) if steps else None
            if isinstance(name, str) and "${" not in name:
                OmegaConf.update(raw, section, {"name": name})
            OmegaConf.update(raw, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, AttributeError, IndexError, TypeError) as error:
            raise ConfigError(f"command line: {key}: {_first_line(error)}") from error
    return source.config(raw)


class _Source:
    """File with overrides: converts its content to a config, and locates the line of each key."""

    def __init__(self, path: Path, root: yaml.Node, overridden: Sequence[str]) -> None:
        self.path = path
        self.overridden = overridden
        self.lines: dict[str, int] = {}
        self._index(root, "")

    def config(self, raw: DictConfig) -> Config:
        content: Any = OmegaConf.to_container(raw)
        try:
            values: Any = OmegaConf.to_container(raw, resolve=True)
            missing = sorted(OmegaConf.missing_keys(raw))
        except (OmegaConfBaseException, RecursionError) as error:
            key = str(getattr(error, "full_key", None) or "")
            reason = _first_line(error)
            hint = f".\n{hints.VARIABLES}" if re.search("key '[A-Z_]+' not found", reason) else ""
            raise self.error(key, f": {reason}{hint}") from error
        if missing:
            raise self.error(
                missing[0], f" is ???.\nExpected: a value of this key. Fix: {missing[0]}=VALUE"
            )
        section: Key = ()
        try:
            config = Config.model_validate(_with_key_on(values))
            section = ("inference",)
            make_protocol(config.inference.protocol, to_dict(config.inference))
        except (ValidationError, ConfigError) as error:
            cause: Any = error if isinstance(error, ValidationError) else error.__cause__
            line = cause.errors(include_url=False)[0]
            raise self.explained((*section, *line["loc"]), line["msg"], content) from error
        config._source = (config.model_dump(), content)
        return config

    def explained(self, key: Key, message: str, content: Any) -> ConfigError:
        """Return the error of a section, with its location and fix."""
        written = _at(content, key)
        if message.startswith(": unknown key.\n"):
            message = message.replace("\n", f"{hints.other_sections(str(key[-1]))}\n", 1)
        elif message.startswith(" is ") and "${" in str(written):
            # The value may be a secret.
            message = f" is {shown(written)}.\n{message.partition(chr(10))[2]}"
        if repair := hints.value_repair(written, message):
            fix = f"{key[-1]}: {repair}"
            if self._origin(key_text(key)) == "command line":
                short = repair if repair.startswith('"') else repair.replace(", ", ",")
                fix = f"{key_text(key)}={short}"
            message += f"\nFix: {one_line(fix)}"
        return self.error(key_text(key), message)

    def error(self, key: str, message: str) -> ConfigError:
        """Return an error that names the file and line of `key`, or the command line."""
        return ConfigError(f"{self._origin(key)}: {one_line(key)}{message}")

    def _origin(self, key: str) -> str:
        line = self.lines.get(key) or self.lines.get(key.rpartition(".")[0] or "-")
        origin = f"{self.path}{f', line {line}' if line else ''}"
        for written in self.overridden:
            below = key not in self.lines and written.startswith(f"{key}.")
            if below or re.match(re.escape(written) + r"[.\[]", f"{key}."):
                origin = "command line"
        return origin

    def refuse_foreign_resolvers(self, node: Any, key: Key) -> None:
        """Refuse all resolvers but `${oc.env:HRSEG_...}`, because a config must not read secrets.

        Raises:
            ConfigError: another resolver.
        """
        if isinstance(node, dict | list):
            for name, value in node.items() if isinstance(node, dict) else enumerate(node):
                self.refuse_foreign_resolvers(value, (*key, name))
        elif isinstance(node, str):
            # An interpolation of another form could build the name of a resolver.
            rest = re.sub(r"\$\{(oc\.env:HRSEG_[A-Z0-9_]+(,[^${}]*)?|[\w.\[\]]+)\}", "", node)
            if "${" in rest:
                message = f": {one_line(node)} is not allowed.\n"
                expected = "Expected: only ${key} and ${oc.env:HRSEG_...}."
                raise self.error(key_text(key), message + expected)

    def _index(self, node: yaml.Node, key: str) -> None:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                full_key = f"{key}.{name.value}".lstrip(".")
                self.lines[full_key] = name.start_mark.line + 1
                self._index(value, full_key)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._index(value, f"{key}[{index}]")


def _read(path: Path) -> tuple[DictConfig, yaml.Node]:
    """Return the content of a YAML file, and its nodes with line numbers."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(hints.not_text(path, content)) from error
    try:
        _refuse_depth(text)
        raw = OmegaConf.load(StringIO(text))
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"{path} is not valid YAML.\n{hints.yaml_reason(text, error)}") from error
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
        lines = "\n".join(str(error).splitlines()[:3]).rstrip(".")
        raise ConfigError(f"{path} is not valid YAML.\n{lines}") from error
    if not isinstance(raw, DictConfig) or not isinstance(root, yaml.MappingNode):
        raise ConfigError(
            f"{path} has no 'key: value' pairs.\n"
            "Expected: a config. Fix: `hrseg configs NAME` copies a shipped config as an example."
        )
    return raw, root


def _refuse_depth(text: str) -> None:
    """Raise YAMLError for deeply nested lists and sections, which crash parsers written in C."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH:
            raise yaml.YAMLError(
                f"Sections are nested more than {_DEPTH} levels deep: {event.start_mark}"
            )


def _split_override(override: str) -> tuple[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"{override!r} is not an override.\nExpected: key=value, e.g. data.batch_size=4"
        )
    try:
        return key, OmegaConf.to_container(OmegaConf.from_dotlist([f"value={value}"]))["value"]  # type: ignore[index,call-overload]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(
            f"command line: {key}: {value!r} is not a YAML value.\n"
            'Expected: e.g. text, 3 or [64,64]. Fix: put spaces in quotes, "key=[64, 64]".'
        ) from error


def _unresolved(value: Any, loaded: Any, source: Any) -> Any:
    """Return a value; unchanged parts have the text of their interpolation in the source."""
    if isinstance(source, str) and "${" in source and value == loaded:
        return source
    if isinstance(value, dict) and isinstance(source, dict):
        return {
            key: _unresolved(item, loaded.get(key), source.get(key)) for key, item in value.items()
        }
    if isinstance(value, list | tuple) and isinstance(source, list) and len(value) == len(source):
        old = loaded if len(loaded) == len(value) else [None] * len(value)
        return [_unresolved(*items) for items in zip(value, old, source, strict=True)]
    return value


def _with_key_on(values: Any) -> Any:
    """Return the values with the key `on`, which YAML 1.1 reads as true."""
    if isinstance(values, dict):
        return {"on" if key is True else key: _with_key_on(item) for key, item in values.items()}
    return [_with_key_on(item) for item in values] if isinstance(values, list) else values


def _at(content: Any, key: Key) -> Any:
    """Return the value of a key, or the text of an interpolation that contains the key."""
    for step in key:
        try:
            content = content[step]
        except (KeyError, IndexError, TypeError):
            return content if isinstance(content, str) else None
    return content


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip().rstrip(".")
