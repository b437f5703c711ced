"""Arguments that several commands share, and their meaning: config, run, checkpoint, threads."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.errors import ConfigError, DataError
from hrseg.utils.text import printable

if TYPE_CHECKING:
    from hrseg.config.schema import Config

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
    """Add `--plugin`, and allow the `key=value` pairs that `hrseg.cli` collects.

    `hrseg.cli` imports the plugins before the command runs.
    """
    parser.set_defaults(overrides=[])
    parser.epilog = "key=value pairs change the config: data.batch_size=4 trainer.devices=2"
    help = "Python file or module that registers parts by name; may be given more than once"
    parser.add_argument("--plugin", action="append", metavar="FILE_OR_MODULE", help=help)


def config_of(arguments: argparse.Namespace) -> "Config":
    """Return the config that `--config` names, with the overrides."""
    from hrseg.config.loader import load_config

    out = getattr(arguments, "json", None)
    if out is not None and out.is_dir():
        raise ConfigError(f"--json {out} is a folder; expected a file to write.")
    if not arguments.config:
        raise ConfigError(
            "which config? Say --config FILE; `hrseg configs` lists the shipped ones."
        )
    return load_config(arguments.config, arguments.overrides)


def check_least(arguments: argparse.Namespace, smallest: float, *names: str) -> None:
    """Raise ConfigError if one of the options is below `smallest`."""
    for name in names:
        value = getattr(arguments, name, None)
        if value is not None and value < smallest:
            raise ConfigError(f"--{name} {value}: expected {smallest} or more.")


def run_of_arguments(arguments: argparse.Namespace) -> Path:
    """Return the argument `run`, else the newest run by the overrides `runs=` and `name=`."""
    from hrseg.checkpoints.runs import newest_run

    if getattr(arguments, "run", None):
        return Path(arguments.run)
    given = dict(pair.split("=", 1) for pair in arguments.overrides)
    return newest_run(Path(given.get("runs", "runs")), given.get("name", "*"))


def checkpoint_to_score(arguments: argparse.Namespace) -> tuple["Config", Path, Path]:
    """Return the config, the checkpoint, and the folder of its run, for `validate` and `test`."""
    from hrseg.checkpoints.runs import newest_run, refuse_links, run_of
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
    checkpoint = find_checkpoint(checkpoint or run or Path())
    check_root(config)
    for name in _TRAINING_ONLY:
        if not any(pair.startswith(f"trainer.{name}=") for pair in arguments.overrides):
            config.trainer.pop(name, None)
    return config, checkpoint, run or Path(config.runs) / config.name


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint of a path, of a run folder its best one."""
    from hrseg.checkpoints.runs import checkpoint_at

    checkpoint = checkpoint_at(path)
    if not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")
    return checkpoint


def check_root(config: "Config") -> None:
    """Raise DataError if the data set is missing, before torch is imported."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        if fault := _foreign_path(config.data.root):
            raise DataError(f"data.root: {fault}")
        path = root.absolute()
        fault = f"{path} is a file, not a folder" if root.is_file() else f"no folder {path}"
        raise DataError(
            f"data.root: {fault}.\n"
            f"Expected the {config.data.name} data set there; say where it is: data.root=/path"
        )


def _foreign_path(path: str) -> str:
    """Return the fault of a path with a shell variable, or of Windows, else ""."""
    if "$" in path:
        from hrseg.config.hints import VARIABLES

        return f"{path} has a variable of the shell, which a config does not expand.\n{VARIABLES}"
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", path):
        linux = f"/mnt/{path[0].lower()}/{path[3:]}".replace("\\", "/")
        return f"{path} is a Windows path.\nExpected a path of this system, in WSL {linux}."
    return ""


def set_threads(arguments: argparse.Namespace) -> None:
    """Set the number of torch's threads, which the runtimes of exported files follow."""
    check_least(arguments, 1, "threads")
    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)


def print_once(line: str) -> None:
    """Print in the first process of a run only."""
    from hrseg.checkpoints.runs import is_first_process

    if is_first_process():
        print(printable(line))
