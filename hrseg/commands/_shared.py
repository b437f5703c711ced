"""Arguments that several commands share, and their meaning: config, run, checkpoint, threads.

Like every command file, this one imports torch only inside functions.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.errors import ConfigError, DataError
from hrseg.utils.text import printable

if TYPE_CHECKING:
    from hrseg.config.schema import Config

OVERRIDES = "key=value pairs that change the config, e.g. data.batch_size=4 trainer.devices=2"
PLUGIN = "Python file or module that registers parts by name; may be given more than once"

# Settings of a training that do not apply to an evaluation of its checkpoint.
_TRAINING_ONLY = (
    "limit_val_batches fast_dev_run overfit_batches accelerator devices num_nodes strategy "
    "sync_batchnorm"
).split()


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--config`, `--plugin` and the overrides."""
    parser.add_argument("--config", help=help)
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin` and the `key=value` pairs, which may stand anywhere among the options."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    add_plugin(parser)


def add_plugin(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin`; `hrseg.cli` imports the plugins before the command runs."""
    parser.add_argument("--plugin", action="append", metavar="FILE_OR_MODULE", help=PLUGIN)


def config_name(arguments: argparse.Namespace) -> str:
    """Return the value of `--config`.

    Raises:
        ConfigError: none was given.
    """
    if not arguments.config:
        raise ConfigError(
            "which config? Say --config FILE; `hrseg configs` lists the shipped ones."
        )
    return str(arguments.config)


def move_override(arguments: argparse.Namespace, name: str) -> None:
    """Move a `key=value` pair that argparse took for the positional argument `name`."""
    value = getattr(arguments, name)
    if value and "=" in value and not Path(value).exists():
        arguments.overrides.insert(0, value)
        setattr(arguments, name, None)


def run_of_arguments(arguments: argparse.Namespace) -> Path:
    """Return the newest run by the overrides `runs=` and `name=`, by default below runs/."""
    from hrseg.checkpoints.runs import newest_run

    given = dict(pair.split("=", 1) for pair in arguments.overrides if "=" in pair)
    return newest_run(Path(given.get("runs", "runs")), given.get("name", "*"))


def checkpoint_to_score(arguments: argparse.Namespace) -> tuple["Config", Path, Path]:
    """Return the config, the checkpoint, and the folder of its run, for `validate` and `test`.

    Raises:
        ConfigError: no such checkpoint, or a checkpoint outside of a run folder without a config.
        DataError: the data set is missing.
    """
    from hrseg.checkpoints.runs import checkpoint_at, newest_run, refuse_links, run_of
    from hrseg.config.loader import load_config

    checkpoint = Path(arguments.checkpoint) if arguments.checkpoint else None
    run = run_of(checkpoint) if checkpoint else None
    if arguments.config:
        config = load_config(arguments.config, arguments.overrides)
        run = run or (None if checkpoint else newest_run(Path(config.runs), config.name))
    elif checkpoint and not run:
        raise ConfigError(f"{checkpoint} lies in no run folder: say --config as well.")
    else:
        run = run or run_of_arguments(arguments)
    if run is not None:
        refuse_links(run)
        if not arguments.config:
            config = load_config(run / "config.yaml", arguments.overrides)
    checkpoint = checkpoint_at(checkpoint or run or Path())
    require_checkpoint(checkpoint)
    check_root(config)
    for name in _TRAINING_ONLY:
        if not any(pair.startswith(f"trainer.{name}=") for pair in arguments.overrides):
            config.trainer.pop(name, None)
    return config, checkpoint, run or Path(config.runs) / config.name


def require_checkpoint(checkpoint: Path) -> None:
    """Raise ConfigError if a checkpoint is missing."""
    if not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")


def check_root(config: "Config") -> None:
    """Raise DataError if the data set is missing, before torch is imported."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        raise DataError(
            f"data.root: no folder {root.absolute()}.\n"
            f"Expected the {config.data.name} data set there; say where it is: data.root=/path"
        )


def set_threads(threads: int | None) -> None:
    """Set the number of torch's threads, which the runtimes of exported files follow."""
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads {threads}: expected 1 or more.")
        import torch

        torch.set_num_threads(threads)


def print_once(line: str) -> None:
    """Print in the first process of a run only."""
    from hrseg.checkpoints.runs import is_first_process

    if is_first_process():
        print(printable(line))
