"""`hrseg data`: check the files of a data set, print statistics, write the cache."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import add_config, check_root, config_name
from hrseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `data check`, `data stats` and `data cache`; `data` alone prints its help."""
    parser.set_defaults(action=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    check = commands.add_parser("check", help="look at every file, list what is wrong")
    add_config(check, "config whose data section says which data set")
    check.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="default: train and val, test if it is there"
    )
    check.add_argument(
        "--hash", action="store_true", help="compare with the manifest of sha256 sums, or write it"
    )
    check.set_defaults(action=_check)

    stats = commands.add_parser("stats", help="class weights, mean and standard deviation")
    add_config(stats, "config whose data section says which data set")
    stats.add_argument("--split", help="default: the one to train on")
    stats.set_defaults(action=_stats)

    cache = commands.add_parser("cache", help="decode images once; data.cache=FOLDER uses them")
    add_config(cache, "config whose data section says which data set")
    cache.add_argument("--verify", action="store_true", help="read it all, find what is damaged")
    cache.add_argument("--workers", type=int, help="threads; default: one per core")
    cache.set_defaults(action=_cache)

    for command in (check, stats):
        command.add_argument("--json", metavar="FILE", help="write the result as JSON too")
        command.add_argument("--workers", type=int, help="processes; default: one per core")


def run(arguments: argparse.Namespace) -> int | None:
    """Run the subcommand."""
    code: int | None = arguments.action(arguments)
    return code


def _check(arguments: argparse.Namespace) -> int:
    splits = arguments.splits and [word for word in arguments.splits if "=" not in word]
    arguments.overrides += [word for word in arguments.splits or () if "=" in word]
    config, out = _config(arguments)
    from hrseg.commands._data import check_data

    faults = check_data(config, splits, out, arguments.workers, arguments.hash)["faults"]
    return DataError.exit_code if faults else 0


def _stats(arguments: argparse.Namespace) -> None:
    config, out = _config(arguments)
    from hrseg.commands._data import data_stats

    data_stats(config, arguments.split, out, arguments.workers)


def _cache(arguments: argparse.Namespace) -> None:
    config, _ = _config(arguments)
    from hrseg.commands._data import cache_data

    cache_data(config, arguments.workers, arguments.verify)


def _config(arguments: argparse.Namespace) -> tuple["Config", Path | None]:
    """Return the config of the data set, and the file for the result."""
    from hrseg.config.loader import load_config

    if arguments.workers is not None and arguments.workers < 0:
        raise ConfigError(f"--workers {arguments.workers}: expected 0 or more.")
    config = load_config(config_name(arguments), arguments.overrides)
    check_root(config)
    out = getattr(arguments, "json", None)
    return config, Path(out) if out else None
