"""`hrseg configs`: list the shipped configs, copy one, or write the JSON Schema."""

import argparse
import json
import shutil
from pathlib import Path

from hrseg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", help="config to copy into this folder; default: list all configs"
    )
    schema = "write the JSON Schema of a config to FILE; without FILE, print it"
    parser.add_argument("--schema", nargs="?", const="-", metavar="FILE", help=schema)


def run(arguments: argparse.Namespace) -> None:
    from hrseg.config.loader import shipped_configs
    from hrseg.utils.registry import find

    if arguments.schema:
        from hrseg.config.schema import json_schema

        text = json.dumps(json_schema(), indent=1)
        if arguments.schema != "-":
            Path(arguments.schema).write_text(f"{text}\n", encoding="utf-8")
        print(text if arguments.schema == "-" else f"wrote {arguments.schema}")
        return
    configs = shipped_configs()
    if not arguments.name:
        width = max(map(len, configs))
        for name, path in configs.items():
            # The first line is for editors, the second is the description.
            print(f"{name:{width}} {path.read_text(encoding='utf-8').splitlines()[1].lstrip('# ')}")
        return
    source = find(configs, arguments.name.removesuffix(".yaml"), "config")
    target = Path(source.name)
    if target.exists():
        raise ConfigError(
            f"{target} exists already in this folder. It was not overwritten.\n"
            "Expected: a folder without a file of this name. Fix: rename the file."
        )
    shutil.copyfile(source, target)
    print(f"wrote {target}")
    schema = target.with_name("schema.json")
    if not schema.exists():
        shutil.copyfile(source.with_name(schema.name), schema)
        print(f"wrote {schema}: editors complete and check the keys of configs with it")
