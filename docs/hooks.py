"""Reference pages that mkdocs generates from hrseg itself at each build."""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout, suppress
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from hrseg.cli import COMMANDS, make_parser
from hrseg.config.loader import load_config, shipped_configs
from hrseg.config.protocols import PROTOCOLS
from hrseg.config.schema import json_schema

Schema = Mapping[str, Any]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "reference/command-line.md": command_line(),
        "reference/config.md": config_reference(),
        "reference/configs.md": shipped(),
        "reference/protocols.md": protocols(),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def help_of(*words: str) -> str:
    """Return the `--help` text of a command."""
    os.environ["COLUMNS"] = "100"
    output = io.StringIO()
    with redirect_stdout(output), suppress(SystemExit):
        make_parser(words[:1]).parse_args([*words, "--help"])
    return output.getvalue()


def command_line() -> str:
    """Return the page of all commands, from the parsers."""
    lines = [
        "# Command line",
        "",
        "Generated from the parsers. `hrseg COMMAND --help` prints the same text. `key=value` pairs",
        "change the [config](config.md).",
        "",
        "Exit codes: 0 success, 1 a fault of hrseg, 2 usage or config, 3 data, 4 a verification failed,",
        "130 Ctrl-C, 143 SIGTERM, 129 closed terminal, 141 closed output.",
    ]
    for command, summary in COMMANDS.items():
        text = help_of(command)
        lines += [
            "",
            f"## hrseg {command}",
            "",
            f"{summary[0].upper()}{summary[1:]}.",
            "",
            *code(text),
        ]
        nested = re.findall(
            r"^    (\w+) ", text.partition("\npositional arguments:\n  command\n")[2], re.M
        )
        for name in nested:
            lines += ["", f"### hrseg {command} {name}", "", *code(help_of(command, name))]
    return "\n".join(lines) + "\n"


def code(text: str) -> list[str]:
    """Return lines of a code block."""
    return ["```text", text.rstrip(), "```"]


def config_reference() -> str:
    """Return the page of all keys, from the JSON Schema."""
    schema = json_schema()
    lines = [
        "# Config",
        "",
        "Generated from the schema, which `hrseg configs --schema` prints for editors. A config is a YAML",
        "file. On the command line a key is written `section.key=value`, for example",
        '`data.batch_size=4` or `"inference.scales=[0.75,1.0]"`.',
        "",
        "## Top level",
        "",
    ]
    top = {
        key: field for key, field in schema["properties"].items() if not is_section(field, schema)
    }
    lines += table(top, schema)
    for key, field in schema["properties"].items():
        if key in top:
            continue
        lines += ["", f"## {key}", "", sentence(field.get("description", ""))]
        field = resolve(field, schema)
        if "properties" in field:
            plain = {k: f for k, f in field["properties"].items() if not parts(f)}
            lines += ["", *table(plain, schema, key)]
            for name, part in field["properties"].items():
                lines += named_parts(f"{key}.{name}", part, schema)
        else:
            lines += named_parts(key, field.get("items", field), schema)
    return "\n".join(lines) + "\n"


def named_parts(key: str, field: Schema, schema: Schema) -> Iterator[str]:
    """Yield the options of all named parts of a section, such as losses, then those of each."""
    found = [resolve(part, schema) for part in parts(field)]
    if not found:
        return
    common = {
        name: option
        for name, option in found[0]["properties"].items()
        if all(part["properties"].get(name) == option for part in found)
    }
    if len(found) > 1 and common:
        yield from ("", f"### Options of every `{key}`", "")
        yield from table(common, schema, key)
    for part in found:
        name = part["properties"]["name"]
        names = name.get("enum") or [name.get("const")]
        yield from (
            "",
            f"### {key}: {', '.join(names)}",
            "",
            sentence(part.get("description", "")),
            "",
        )
        shown = common if len(found) > 1 else {}
        own = {k: f for k, f in part["properties"].items() if k != "name" and k not in shown}
        yield from table(own, schema, key) if own else ["No further options."]


def parts(field: Schema) -> list[Schema]:
    """Return the alternatives of a field that chooses a part by name."""
    for option in field.get("anyOf", [field]):
        if "discriminator" in option:
            return list(option["oneOf"])
        if "name" in option.get("properties", {}):
            return [option]
    return []


def is_section(field: Schema, schema: Schema) -> bool:
    """Return whether a field of the top level is a section of its own."""
    field = resolve(field, schema)
    return "properties" in field or bool(parts(field.get("items", field)))


def resolve(field: Schema, schema: Schema) -> Schema:
    """Return the definition that a field refers to."""
    reference = field.get("$ref", "")
    return schema["$defs"][reference.rpartition("/")[2]] if reference else field


def table(fields: Mapping[str, Schema], schema: Schema, section: str = "") -> list[str]:
    """Return the rows of fields: key, type, default, description."""
    rows = ["| key | values | default | description |", "|---|---|---|---|"]
    for key, field in fields.items():
        default = "required" if "default" not in field else f"`{plain(field['default'])}`"
        text = sentence(field.get("description", ""))
        if examples := field.get("examples"):
            text += f" Example: `{plain(examples[0])}`"
        name = f"{section}.{key}" if section and section != "losses" else key
        rows.append(f"| `{name}` | {values(resolve(field, schema))} | {default} | {cell(text)} |")
    return rows


def values(field: Schema) -> str:
    """Return the allowed values of a field in words."""
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(values(option) for option in field["anyOf"]))
    if "enum" in field:
        return ", ".join(f"`{plain(value)}`" for value in field["enum"])
    if "const" in field:
        return f"`{plain(field['const'])}`"
    kind = field.get("type", "any")
    limits = [
        f"{word} {field[key]}"
        for key, word in (
            ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"),
            ("exclusiveMaximum", "below"),
        )
        if key in field
    ]  # fmt: skip
    names = {
        "array": "list",
        "object": "mapping",
        "integer": "integer",
        "boolean": "`true`, `false`",
    }
    text = names.get(kind, kind)
    if kind == "array" and isinstance(field.get("items"), Mapping) and field["items"]:
        text = f"list of {values(field['items']).replace('`true`, `false`', 'booleans')}"
    return f"{text} ({', '.join(limits)})" if limits else text


def plain(value: Any) -> str:
    """Return a value as in YAML."""
    words = {True: "true", False: "false", None: "null", "": "''"}
    if isinstance(value, bool | str | None) and value in words:
        return words[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(plain, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {plain(v)}" for k, v in value.items()) + "}"
    return str(value)


def sentence(text: str) -> str:
    """Return a description with a capital letter and a full stop."""
    text = " ".join(text.split())
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|")


def shipped() -> str:
    """Return the page of the shipped configs, with their comments."""
    lines = [
        "# Shipped configs",
        "",
        "Generated from `configs/`. `hrseg configs` lists them, `hrseg configs NAME` copies one, and",
        "`hrseg fit --config NAME --print-config` prints every key.",
    ]
    for name, path in sorted(shipped_configs().items()):
        text = path.read_text(encoding="utf-8")
        comment = re.findall(r"^# (?!yaml-language-server)(.*)$", text, re.M)
        first = next(i for i, line in enumerate(text.splitlines()) if not line.startswith("#"))
        head = " ".join(
            line for line in comment if text.index(line) < text.index(text.splitlines()[first])
        )
        loaded = load_config(name)
        facts = (
            f"Data set `{loaded.data.name}`, backbone `{loaded.model.backbone.name}`, head "
            f"`{loaded.model.head.name}`, batch size {loaded.data.batch_size}, "
            f"crop {'x'.join(map(str, loaded.data.crop_size))}."
        )
        lines += ["", f"## {name}", "", head, "", facts, "", "```yaml"]
        lines += [line for line in text.splitlines()[first:]] + ["```"]
    return "\n".join(lines) + "\n"


def protocols() -> str:
    """Return the page of the named protocols."""
    lines = [
        "# Protocols",
        "",
        "Generated from `hrseg/config/protocols.py`. `inference.protocol` names a preset, and every",
        "field of it can be changed with `inference.FIELD=value`. Each score is stored with its protocol.",
        "[Why protocols matter](../explanation/protocols.md).",
    ]
    for name, protocol in PROTOCOLS.items():
        lines += ["", f"## {name}", "", "| field | value |", "|---|---|"]
        lines += [
            f"| `inference.{field}` | `{plain(value)}` |"
            for field, value in protocol.to_dict().items()
            if field != "name"
        ]
    return "\n".join(lines) + "\n"
