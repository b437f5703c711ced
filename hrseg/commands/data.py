"""`hrseg data`: check the files of a data set, print statistics, write the cache."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import add_config, check_least, check_root, config_of
from hrseg.errors import DataError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    check = commands.add_parser("check", help="read every file and list the faults")
    check.add_argument(
        "--splits", nargs="+", metavar="SPLIT", help="default: train and val, test if it is there"
    )
    check.add_argument(
        "--hash", action="store_true", help="compare with the manifest of sha256 sums, or write it"
    )
    check.set_defaults(function=_check, json_keys=("splits", "faults"))

    stats = commands.add_parser("stats", help="class weights, mean and standard deviation")
    stats.add_argument("--split", help="default: the one to train on")
    stats.set_defaults(function=_stats, json_keys=("split", "mean"))

    cache = commands.add_parser("cache", help="decode images once; data.cache=FOLDER uses them")
    cache.add_argument(
        "--verify", action="store_true", help="read the whole cache and list damaged entries"
    )
    cache.set_defaults(function=_cache)

    for command, units in ((check, "processes"), (stats, "processes"), (cache, "threads")):
        add_config(command, "config with the data section of the data set")
        command.add_argument("--workers", type=int, help=f"{units}; default: one per core")
    for command in (check, stats):
        command.add_argument("--json", metavar="FILE", type=Path, help="write the result as JSON")


def _check(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    from hrseg.commands._data import check_data

    result = check_data(config, arguments.splits, arguments.json, arguments.workers, arguments.hash)
    return DataError.exit_code if result["faults"] else 0


def _stats(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from hrseg.commands._data import data_stats

    data_stats(config, arguments.split, arguments.json, arguments.workers)


def _cache(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from hrseg.commands._data import cache_data

    cache_data(config, arguments.workers, arguments.verify)


def _config(arguments: argparse.Namespace) -> "Config":
    check_least(arguments, 0, "workers")
    config = config_of(arguments)
    check_root(config)
    return config
