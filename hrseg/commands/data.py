"""`hrseg data`: check files, print statistics, write the cache, import annotations."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrseg.commands._shared import add_command, add_config, check_least, check_root, config_of
from hrseg.errors import DataError

# Names of hrseg.data.formats.FORMATS, which needs numpy.
FORMATS = (
    "coco", "labelme", "cvat", "supervisely", "label-studio", "voc", "roboflow", "yolo", "csv"
)  # fmt: skip

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    check = add_command(commands, "check", "read every file and list the faults")
    check.add_argument(
        "--splits",
        nargs="+",
        metavar="SPLIT",
        help="splits to check; default: the training and validation split, and the test split "
        "if it exists",
    )
    check.add_argument(
        "--hash",
        action="store_true",
        help="compare the files with the manifest of SHA-256 sums; write a missing manifest",
    )
    check.set_defaults(function=_check, json_keys=("splits", "faults"))

    stats = add_command(
        commands, "stats", "print class weights, mean and standard deviation of a split"
    )
    stats.add_argument("--split", help="split to read; default: the training split")
    stats.set_defaults(function=_stats, json_keys=("split", "mean"))

    cache = add_command(
        commands, "cache", "decode images and masks once; data.cache=FOLDER uses the result"
    )
    cache.add_argument(
        "--verify",
        action="store_true",
        help="read the whole cache, and list and remove damaged entries",
    )
    cache.set_defaults(function=_cache)

    for command, units in ((check, "processes"), (stats, "processes"), (cache, "threads")):
        add_config(command, "config whose data section describes the data set")
        command.add_argument(
            "--workers", type=int, help=f"number of {units}; default: one per core"
        )
    for command in (check, stats):
        command.add_argument(
            "--json", metavar="FILE", type=Path, help="JSON file for the result; default: none"
        )
    _add_import(commands)


def _add_import(commands: Any) -> None:
    """Add the parser of `hrseg data import`."""
    parser = add_command(
        commands, "import", "convert annotations of other tools to images and masks"
    )
    parser.add_argument("source", metavar="SOURCE", type=Path, help="folder of the annotations")
    parser.add_argument("out", metavar="OUT", type=Path, help="new folder for images and masks")
    parser.add_argument(
        "--format",
        default="auto",
        choices=("auto", *FORMATS),
        help="format of the annotations; default: auto, found by the files in SOURCE",
    )
    parser.add_argument(
        "--unlabelled",
        default="ignore",
        choices=("ignore", "background"),
        help="meaning of unlabelled pixels: ignored, or a class background; default: ignore",
    )
    parser.set_defaults(function=_import)


def _import(arguments: argparse.Namespace) -> None:
    from hrseg.commands._import import import_data

    background = arguments.unlabelled == "background"
    import_data(arguments.source, arguments.out, arguments.format, background)


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
