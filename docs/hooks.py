"""Generated parts of pages: command line, config, shipped configs, protocols, benchmarks.

A line `<!-- generated: NAME -->` of a page is replaced by the result of `GENERATORS[NAME]` when the
site is built, so that no copy of these tables can become outdated.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from hrseg.cli import make_parser
from hrseg.config.loader import shipped_configs
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.schema import Config, InferenceConfig, ModelConfig, json_schema

sys.path.append(str(Path(__file__).parents[1] / "scripts" / "benchmarks"))

import claims_table
import drives_table

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace the markers of a page; a hook of MkDocs."""
    return MARKER.sub(lambda match: GENERATORS[match[1]](), markdown)


def command_line() -> str:
    """Return a section per command: usage, arguments, options."""
    sections = [_command(parser, level) for parser, level in _parsers(make_parser())]
    return "\n\n".join(sections)


def _parsers(
    parser: argparse.ArgumentParser, level: int = 1
) -> Iterator[tuple[argparse.ArgumentParser, int]]:
    """Yield the parsers of all commands and subcommands, with the level of their headings."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield child, level + 1
                yield from _parsers(child, level + 1)


def _command(parser: argparse.ArgumentParser, level: int) -> str:
    words = parser.prog.split()
    parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=92)
    usage = parser.format_usage().rstrip().replace("\n" + " " * len("usage: "), "\n")
    summary = [_cell(parser.description)] if parser.description else []
    children: dict[str, str] = {}
    rows = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            children = {choice.dest: choice.help or "" for choice in action._choices_actions}
        elif not isinstance(action, argparse._HelpAction):
            rows.append((f"`{_signature(action)}`", _sentence(action)))
    blocks = [
        f"{'#' * level} {parser.prog}",
        *summary,
        f"```text\n{usage.removeprefix('usage: ')}\n```",
    ]
    if rows:
        blocks.append(_table(("argument", "description"), rows))
    if children:
        links = [(f"[{parser.prog} {name}](#{'-'.join([*words, name])})", text)
                 for name, text in children.items()]  # fmt: skip
        blocks.append(_table(("subcommand", "description"), links))
    if parser.epilog:
        blocks.append(f"{_cell(parser.epilog)}.")
    return "\n\n".join(blocks)


def _signature(action: argparse.Action) -> str:
    """Return an argument as help shows it, such as `--resume [RUN]`."""
    formatter = argparse.HelpFormatter("")
    default = action.dest.upper() if action.option_strings else action.dest
    value = "" if action.nargs == 0 else formatter._format_args(action, default)
    names = ", ".join(action.option_strings)
    return f"{names} {value}".strip()


def _sentence(action: argparse.Action) -> str:
    text = action.help or ""
    if action.help and "default" not in action.help and action.default not in (None, False, []):
        text += f"; default: {action.default}"
    elif not action.help and action.choices:
        text = f"one of {', '.join(map(str, action.choices))}"
    return _cell(text % {"default": action.default} if "%(" in text else text)


def config() -> str:
    """Return a section per section of the config, with each key, from its JSON Schema."""
    schema = json_schema()
    sections = {key: _resolved(value, schema) for key, value in schema["properties"].items()}
    plain = {key: value for key, value in sections.items() if not _is_section(value)}
    blocks = ["## The experiment", _keys("", plain, schema, Config)]
    for key, value in sections.items():
        if key not in plain:
            blocks += _section(key, value, schema)
    return "\n\n".join(blocks)


def _is_section(value: Mapping[str, Any]) -> bool:
    return "properties" in value or bool(_models(value))


def _models(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the models among which the `name` of a section chooses; of a list, of its items."""
    options = value.get("items", value).get("anyOf", ())
    return next((option["oneOf"] for option in options if "oneOf" in option), [])


def _section(path: str, value: Mapping[str, Any], schema: Mapping[str, Any]) -> list[str]:
    blocks = [f"## {path}", f"{value['description'][0].upper()}{value['description'][1:]}."]
    if models := _models(value):
        if default := _default(Config, path):
            blocks[-1] += f" Default: {default}."
        return [*blocks, *_named_section(path, models, schema)]
    if path == "trainer":
        rows = [
            (f"`trainer.{name}`", _cell(key["description"]))
            for name, key in value["properties"].items()
        ]
        passed = "The keys are passed to the Trainer unchanged."
        return [*blocks, passed, _table(("key", "description"), rows)]
    fields = {key: _resolved(field, schema) for key, field in value["properties"].items()}
    model = ModelConfig if path == "model" else InferenceConfig
    return [*blocks, _keys(f"{path}.", fields, schema, model)]


def _named_section(
    path: str, models: Sequence[Mapping[str, Any]], schema: Mapping[str, Any]
) -> list[str]:
    """Return the keys that all names share, then those of single names."""
    names = [name for model in models for name in _names(model)]
    shared = {
        key: value
        for key, value in models[0]["properties"].items()
        if key != "name" and all(model["properties"].get(key) == value for model in models)
    }
    blocks = [f"`{path}.name` is one of {', '.join(f'`{name}`' for name in names)}. "
              "The bare name is short for a section without other keys."]  # fmt: skip
    blocks += [_keys(f"{path}.", shared, schema)] if shared else []
    for model in models:
        own = {k: v for k, v in model["properties"].items() if k != "name" and k not in shared}
        if own:
            title = ", ".join(f"`{name}`" for name in _names(model))
            anchor = f"{path}-{_names(model)[0]}"
            blocks += [f"### {path}: {title} {{ #{anchor} }}", model["description"],
                       _keys(f"{path}.", own, schema, anchor=f"{anchor}-")]  # fmt: skip
    for key, value in shared.items():
        if nested := _models(value):
            blocks += [f"### {path}.{key}", *_named_section(f"{path}.{key}", nested, schema)]
    return blocks


def _names(model: Mapping[str, Any]) -> list[str]:
    name = model["properties"]["name"]
    return name.get("enum") or [name["const"]]


def _keys(
    prefix: str,
    fields: Mapping[str, Any],
    schema: Mapping[str, Any],
    model: type[BaseModel] | None = None,
    anchor: str = "",
) -> str:
    """Return the table of some keys; the anchor of each is its dotted path."""
    rows = []
    for key, value in fields.items():
        default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
        if not default:
            default = (_default(model, key) if model else "") or "*required*"
        name = f'<a id="{anchor}{prefix}{key}"></a>`{prefix}{key}`'
        rows.append((name, _type(value, schema), default, _cell(value.get("description", ""))))
    return _table(("key", "type", "default", "description"), rows)


def _default(model: type[BaseModel], key: str) -> str:
    """Return the name of the part that a section has by default, or an empty string."""
    value = model.model_fields[key].get_default(call_default_factory=True)
    parts = value if isinstance(value, list) else [value]
    return ", ".join(f"`{part.name}`" for part in parts if hasattr(part, "name"))


def _resolved(value: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    target = schema["$defs"][value["$ref"].rpartition("/")[2]] if "$ref" in value else {}
    return {**target, **value}


def _type(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema type in words."""
    value = _resolved(value, schema)
    if models := _models(value):
        names = ", ".join(f"`{name}`" for model in models for name in _names(model))
        return f"{'list of' if 'items' in value else 'one of'} {names}"
    if "anyOf" in value:
        return " or ".join(_type(option, schema) for option in value["anyOf"])
    if "enum" in value or "const" in value:
        return ", ".join(f"`{name}`" for name in value.get("enum", [value.get("const")]))
    kind = value.get("type", "any value")
    if kind == "array":
        return _list_type(value, schema)
    if kind == "object":
        return "mapping of " + _type(value.get("additionalProperties", {}), schema)
    return f"{kind}{_limits(value)}"


def _list_type(value: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    items = value.get("prefixItems")
    if items:
        return f"list of {len(items)}: {_type(items[0], schema)}"
    if value.get("maxItems") == 0:
        return "`[]`"
    return f"list of {_type(value.get('items', {}), schema)}"


def _limits(value: Mapping[str, Any]) -> str:
    words = {"exclusiveMinimum": "above", "minimum": "at least",
             "exclusiveMaximum": "below", "maximum": "at most"}  # fmt: skip
    limits = [f"{word} {value[key]}" for key, word in words.items() if key in value]
    return f" ({', '.join(limits)})" if limits else ""


def configs() -> str:
    """Return the table of the shipped configs, and the description of each."""
    rows, sections = [], []
    for name, path in shipped_configs().items():
        text = path.read_text(encoding="utf-8")
        # The first line is for editors; the other comments at the top are the description.
        head = takewhile(lambda line: line.startswith("#"), text.splitlines())
        comments = [line.lstrip("# ") for line in head][1:]
        values = yaml.safe_load(text)
        data, trainer = values["data"], values.get("trainer", {})
        crop = "x".join(map(str, data.get("crop_size", ())))
        figures = (data.get("batch_size", ""), trainer.get("max_epochs", ""))
        devices = str(trainer.get("devices", ""))
        link = f"[{name}](#{name})"
        backbone = values["model"]["backbone"]
        rows.append((link, data["name"], backbone, crop, *map(str, figures), devices))
        sections.append(f"### {name} {{ #{name} }}\n\n{_cell(_joined(comments))}")
    columns = ("config", "data set", "backbone", "crop", "batch", "epochs", "GPUs")
    return "\n\n".join([_table(columns, rows), "## Descriptions", *sections])


def _joined(lines: Sequence[str]) -> str:
    """Join lines; a line that ends with a hyphen continues a word."""
    return "".join(line if line.endswith("-") else f"{line} " for line in lines).rstrip()


def protocols() -> str:
    """Return a table with a column per protocol, and one with the meaning of each field."""
    fields = {name: field for name, field in Protocol.model_fields.items() if name != "name"}
    rows = []
    for name in fields:
        cells = [_value(getattr(protocol, name)) for protocol in PROTOCOLS.values()]
        rows.append((f"`{name}`", *cells))
    meanings = [(f"`inference.{name}`", _cell(str(f.description))) for name, f in fields.items()]
    columns = ("field", *(f"`{name}`" for name in PROTOCOLS))
    return "\n\n".join([
        _table(columns, rows), "### Fields", _table(("field", "meaning"), meanings)
    ])  # fmt: skip


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{item:g}" for item in value) or "[]"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Return text for a cell of a table: no markup, no column separator."""
    return re.sub(r"([|*_\[\]])", r"\\\1", text.replace("<", "&lt;"))


GENERATORS = {
    "command_line": command_line,
    "config": config,
    "configs": configs,
    "protocols": protocols,
    "paper_claims": claims_table.published,
    "camvid_drives": drives_table.published,
}
