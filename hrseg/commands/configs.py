"""`hrseg configs`: list the shipped configs, or copy one."""

import argparse
import shutil
from pathlib import Path

from hrseg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("name", nargs="?", help="the one to copy into this folder")


def run(arguments: argparse.Namespace) -> None:
    """List the configs with their first comment line, or copy one into this folder."""
    from hrseg.config.loader import shipped_configs
    from hrseg.utils.registry import find

    configs = shipped_configs()
    if not arguments.name:
        for name, path in configs.items():
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            print(f"{name:27} {first.lstrip('# ')}")
        return
    source = find(configs, arguments.name.removesuffix(".yaml"), "config")
    target = Path(source.name)
    if target.exists():
        raise ConfigError(f"{target} exists already in this folder; it was left as it is.")
    shutil.copyfile(source, target)
    print(f"wrote {target}")
