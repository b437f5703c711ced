"""`hrseg weights`: list and download published weights, inspect or convert a file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import add_command, add_config, config_of
from hrseg.errors import ConfigError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    list_ = add_command(commands, "list", "list published weights, without a network connection")
    list_.set_defaults(function=_list)

    get = add_command(commands, "get", "download published weights and print the path of the file")
    get.add_argument("name", help="name in `hrseg weights list`, timm/NAME or hf:USER/NAME")
    get.set_defaults(function=_get)

    inspect = add_command(
        commands, "inspect", "print family, network and metadata of a file, and its fit to a config"
    )
    inspect.add_argument("file", help="weights of any supported family, or an exported file")
    add_config(inspect, "config whose model is compared with the file; default: no comparison")
    inspect.set_defaults(function=_inspect)

    convert = add_command(
        commands, "convert", "write weights with the tensor names of another family"
    )
    convert.add_argument("file", help="weights of any supported family")
    to = "family of the new file: the authors' code, mmsegmentation or hrseg (required)"
    families = ("official", "mmseg", "hrseg")
    convert.add_argument("--to", required=True, choices=families, help=to)
    out = "file to write; default: <name>_<family>.pth in the folder of the input"
    convert.add_argument("--out", metavar="FILE", type=Path, help=out)
    add_config(
        convert,
        "config with the metadata that hrseg.load needs: classes, colours, protocol; "
        "only with --to hrseg",
    )
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
        raise ConfigError(
            f"--config cannot be combined with --to {arguments.to}: such a file has no metadata.\n"
            "Expected: --to hrseg, or no config. Fix: leave out --config."
        )
    config = _config(arguments)
    from hrseg.commands._weights import convert_weights

    print(f"wrote {convert_weights(arguments.file, arguments.to, arguments.out, config)}")


def _config(arguments: argparse.Namespace) -> "Config | None":
    """Return the config that describes the weights, or None without `--config`."""
    if arguments.overrides and not arguments.config:
        raise ConfigError(
            f"{arguments.overrides[0]} changes a config, but --config is missing.\n"
            "Expected: the config to change. Fix: --config NAME"
        )
    return config_of(arguments) if arguments.config else None
