"""`hrseg weights`: list and download published weights, inspect or convert a file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import add_config, config_of
from hrseg.errors import ConfigError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    list_ = commands.add_parser("list", help="list published weights (no network is used)")
    list_.set_defaults(function=_list)

    get = commands.add_parser("get", help="download published weights, and print where they are")
    get.add_argument("name", help="a name of `hrseg weights list`, timm/NAME, or hf:USER/NAME")
    get.set_defaults(function=_get)

    inspect = commands.add_parser(
        "inspect", help="print a file's family, network and metadata, and how it fits a config"
    )
    inspect.add_argument("file", help="weights of any family, or an exported file")
    add_config(inspect, "config whose model the file is compared with")
    inspect.set_defaults(function=_inspect)

    convert = commands.add_parser("convert", help="write weights under another family's names")
    convert.add_argument("file", help="weights of any family")
    convert.add_argument("--to", required=True, choices=("official", "mmseg", "hrseg"))
    convert.add_argument("--out", type=Path, help="file; default: <name>_<family>.pth beside it")
    add_config(convert, "with --to hrseg: classes, colours, protocol, so that hrseg.load takes it")
    convert.set_defaults(function=_convert)


def _list(arguments: argparse.Namespace) -> None:
    from hrseg.commands._weights import list_weights

    list_weights()


def _get(arguments: argparse.Namespace) -> None:
    from hrseg.commands._weights import get_weights

    get_weights(arguments.name)


def _inspect(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    from hrseg.commands._weights import inspect_weights

    inspect_weights(arguments.file, config)


def _convert(arguments: argparse.Namespace) -> None:
    if arguments.config and arguments.to != "hrseg":
        raise ConfigError(f"--config goes with --to hrseg: files of {arguments.to} hold weights.")
    config = _config(arguments)
    from hrseg.commands._weights import convert_weights

    print(f"wrote {convert_weights(arguments.file, arguments.to, arguments.out, config)}")


def _config(arguments: argparse.Namespace) -> "Config | None":
    """Return the config that describes the weights, if one is named."""
    if arguments.overrides and not arguments.config:
        raise ConfigError(f"{arguments.overrides[0]} changes a config: name it with --config.")
    return config_of(arguments) if arguments.config else None
