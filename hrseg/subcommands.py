"""The commands of two words: `data check`, `weights inspect`, `benchmark model` and the like.

As in cli.py, heavy imports happen inside a command.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.commands._shared import check_root, config_name
from hrseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def _data_check(arguments: argparse.Namespace) -> int:
    splits = arguments.splits and [word for word in arguments.splits if "=" not in word]
    arguments.overrides += [word for word in arguments.splits or () if "=" in word]
    config, out = _data_config(arguments)
    from hrseg.commands.data import check_data

    faults = check_data(config, splits, out, arguments.workers, arguments.hash)["faults"]
    return DataError.exit_code if faults else 0


def _data_stats(arguments: argparse.Namespace) -> None:
    config, out = _data_config(arguments)
    from hrseg.commands.data import data_stats

    data_stats(config, arguments.split, out, arguments.workers)


def _data_cache(arguments: argparse.Namespace) -> None:
    config, _ = _data_config(arguments)
    from hrseg.commands.data import cache_data

    cache_data(config, arguments.workers, arguments.verify)


def _data_config(arguments: argparse.Namespace) -> tuple["Config", Path | None]:
    """Return the config to look at the data of, and the file for the result."""
    from hrseg.config.loader import load_config

    if arguments.workers is not None and arguments.workers < 0:
        raise ConfigError(f"--workers {arguments.workers}: expected 0 or more.")
    config = load_config(config_name(arguments), arguments.overrides)
    check_root(config)
    out = getattr(arguments, "json", None)
    return config, Path(out) if out else None


def _weights_inspect(arguments: argparse.Namespace) -> None:
    config = _described(arguments)
    from hrseg.commands.weights import inspect_weights

    inspect_weights(arguments.file, config)


def _weights_convert(arguments: argparse.Namespace) -> None:
    if arguments.config and arguments.to != "hrseg":
        raise ConfigError(f"--config goes with --to hrseg: files of {arguments.to} hold weights.")
    config = _described(arguments)
    from hrseg.commands.weights import convert_weights

    out = Path(arguments.out) if arguments.out else None
    print(f"wrote {convert_weights(arguments.file, arguments.to, out, config)}")


def _described(arguments: argparse.Namespace) -> "Config | None":
    """Return the config that says what the weights are, if one is named."""
    from hrseg.config.loader import load_config

    if arguments.overrides and not arguments.config:
        raise ConfigError(f"{arguments.overrides[0]} changes a config: name it with --config.")
    return load_config(arguments.config, arguments.overrides) if arguments.config else None


def _benchmark_model(arguments: argparse.Namespace) -> None:
    config, out = _benchmark_config(arguments)
    if arguments.size and min(arguments.size) < 32:
        raise ConfigError(f"--size {arguments.size[0]} {arguments.size[1]}: expected 32 or more.")
    from hrseg.benchmark.model import benchmark_model

    benchmark_model(config, arguments.size, arguments.batch, arguments.steps, out)


def _benchmark_data(arguments: argparse.Namespace) -> None:
    config, out = _benchmark_config(arguments)
    check_root(config)
    from hrseg.benchmark.data import benchmark_data

    benchmark_data(config, arguments.seconds, not arguments.no_model, out)


def _benchmark_evaluation(arguments: argparse.Namespace) -> None:
    config, out = _benchmark_config(arguments)
    check_root(config)
    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    if checkpoint is not None and not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")
    from hrseg.benchmark.evaluation import benchmark_evaluation

    benchmark_evaluation(config, arguments.images, checkpoint, out)


def _benchmark_config(arguments: argparse.Namespace) -> tuple["Config", Path | None]:
    """Return the config to measure, and the file for the result; options are checked."""
    from hrseg.config.loader import load_config

    for name in ("batch", "steps", "seconds", "images"):
        value = getattr(arguments, name, None)
        if value is not None and value <= 0:
            raise ConfigError(f"--{name} {value}: expected more than 0.")
    out = Path(arguments.json) if arguments.json else None
    if out is not None and out.is_dir():
        raise ConfigError(f"--json {out} is a folder; expected a file to write.")
    return load_config(config_name(arguments), arguments.overrides), out


def _help(arguments: argparse.Namespace) -> None:
    print(arguments.help(), end="")


SUBCOMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "data": _help,
    "data_check": _data_check,
    "data_stats": _data_stats,
    "data_cache": _data_cache,
    "weights_inspect": _weights_inspect,
    "weights_convert": _weights_convert,
    "benchmark_model": _benchmark_model,
    "benchmark_data": _benchmark_data,
    "benchmark_evaluation": _benchmark_evaluation,
}
