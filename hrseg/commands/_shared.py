"""Shared arguments of the commands: config, run, checkpoint, threads."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrseg.errors import ConfigError, DataError
from hrseg.utils.files import check_output
from hrseg.utils.registry import plugins_of
from hrseg.utils.text import printable

if TYPE_CHECKING:
    from hrseg.config.schema import Config

# Trainer settings of a training that do not apply to an evaluation of its checkpoint.
_TRAINING_ONLY = (
    "limit_val_batches fast_dev_run overfit_batches accelerator devices num_nodes strategy "
    "sync_batchnorm"
).split()

CHECKPOINTS = (".ckpt", ".pth", ".safetensors", ".onnx", ".xml")
POLYGONS = ("geojson", "coco", "labelme")  # formats of `hrseg predict --polygons`
_OTHER_FILES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".mp4", ".yaml", ".yml", ".json", ".csv")


def add_command(subparsers: Any, name: str, help: str) -> argparse.ArgumentParser:
    """Add and return the parser of a command; its own `--help` begins with the same text."""
    sentence = f"{help[0].upper()}{help[1:]}."
    parser: argparse.ArgumentParser = subparsers.add_parser(name, help=help, description=sentence)
    return parser


def add_config(parser: argparse.ArgumentParser, help: str) -> None:
    """Add `--config`, `--plugin` and the overrides to a parser."""
    parser.add_argument("--config", metavar="FILE_OR_NAME", help=help)
    add_overrides(parser)


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add `--plugin`, and accept `key=value` overrides of the config.

    `hrseg.cli` collects the overrides, and imports the plugins before the command runs.
    """
    parser.set_defaults(overrides=[])
    parser.epilog = "key=value pairs change the config, e.g. data.batch_size=4 trainer.devices=2"
    help = "Python file or module that registers models, losses, data sets, ...; repeatable"
    parser.add_argument("--plugin", action="append", metavar="FILE_OR_MODULE", help=help)


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add `--checkpoint`."""
    help = "checkpoint, exported file or run folder; default: the best checkpoint of the newest run"
    parser.add_argument("--checkpoint", metavar="FILE_OR_RUN", help=help)


def add_engine_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device` of exported files; trainer.accelerator is the device of checkpoints."""
    help = "of an exported file: cpu, cuda, cuda:1 or tensorrt; default: %(default)s"
    parser.add_argument("--device", default="cpu", help=help)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add `--threads`, which `set_threads` applies."""
    parser.add_argument("--threads", type=int, help="CPU threads; default: one per core")


def config_of(arguments: argparse.Namespace) -> "Config":
    """Return the config of `--config`, with the overrides.

    Raises:
        ConfigError: an invalid or missing config, or an existing file at `--json` without the
            top-level keys `arguments.json_keys`.
    """
    from hrseg.config.loader import load_config

    if getattr(arguments, "json", None):
        check_output("--json", arguments.json, arguments.json_keys)
    if not arguments.config:
        raise ConfigError(
            "No config was given.\n"
            "Expected: --config FILE or --config NAME. Fix: `hrseg configs` lists the names."
        )
    return load_config(arguments.config, arguments.overrides)


def check_least(arguments: argparse.Namespace, smallest: float, *names: str) -> None:
    """Raise ConfigError if the value of one of the options is below `smallest`."""
    for name in names:
        value = getattr(arguments, name, None)
        if value is not None and value < smallest:
            raise ConfigError(
                f"--{name} {value} is too small.\n"
                f"Expected: at least {smallest}. Fix: --{name} {smallest}"
            )


def run_of_arguments(arguments: argparse.Namespace) -> Path:
    """Return the argument `run`, or else the newest run, by the overrides `runs=` and `name=`."""
    from hrseg.checkpoints.runs import newest_run

    if getattr(arguments, "run", None):
        return Path(arguments.run)
    values = dict(pair.split("=", 1) for pair in arguments.overrides)
    return newest_run(Path(values.get("runs", "runs")), values.get("name", "*"))


def checkpoint_to_score(arguments: argparse.Namespace) -> tuple["Config", Path, Path]:
    """Return config, checkpoint and run folder of the commands `validate` and `test`."""
    from hrseg.checkpoints.runs import newest_run, refuse_links, run_of
    from hrseg.config.loader import load_config

    if Path(arguments.config or "").suffix in CHECKPOINTS:
        raise ConfigError(
            f"--config {arguments.config} is a checkpoint.\n"
            f"Expected: a YAML file or a shipped config. Fix: --checkpoint {arguments.config}"
        )
    checkpoint = find_checkpoint(Path(arguments.checkpoint)) if arguments.checkpoint else None
    run = run_of(checkpoint) if checkpoint else None
    if arguments.config:
        config = load_config(arguments.config, arguments.overrides)
        run = run or (None if checkpoint else newest_run(Path(config.runs), config.name))
    elif checkpoint and not run:
        raise ConfigError(
            f"{checkpoint} is not in a run folder, so that its data set is unknown.\n"
            "Expected: a run folder, a checkpoint in one, or a config. Fix: --config NAME_OR_FILE"
        )
    else:
        run = run or run_of_arguments(arguments)
    if run is not None:
        refuse_links(run)
        if not arguments.config:
            config = load_config(run / "config.yaml", arguments.overrides)
    checkpoint = checkpoint or find_checkpoint(run or Path())
    check_root(config)
    for name in _TRAINING_ONLY:
        if not any(pair.startswith(f"trainer.{name}=") for pair in arguments.overrides):
            config.trainer.pop(name, None)
    return config, checkpoint, run or Path(config.runs) / config.name


def find_checkpoint(path: Path) -> Path:
    """Return the checkpoint at a path; for a run folder, its best checkpoint.

    Raises:
        ConfigError: the checkpoint is missing, the file has another kind, or the folder contains
            several runs.
    """
    from hrseg.checkpoints.runs import checkpoint_at

    checkpoint = checkpoint_at(path)
    expected = f"Expected: a run folder or a file ({', '.join(CHECKPOINTS)})."
    if checkpoint.suffix.lower() in _OTHER_FILES:
        raise ConfigError(f"{checkpoint} is not a checkpoint.\n{expected}")
    if checkpoint.is_file():
        return checkpoint
    if not path.is_dir():
        raise ConfigError(f"{checkpoint.absolute()} does not exist.\n{expected}")
    runs = sorted(file.parents[1] for file in path.glob("*/checkpoints/*.ckpt"))
    run = path / "latest" if path / "latest" in runs else runs[-1] if runs else None
    count, fix = (f"; it contains {len(set(runs))} runs", f" Fix: name {run}") if run else ("", "")
    raise ConfigError(f"{path} is a folder without a checkpoint{count}.\n{expected}{fix}")


def check_root(config: "Config") -> None:
    """Raise DataError if the folder of the data set is missing. Does not import torch."""
    root = Path(config.data.root).expanduser()
    # The synthetic data set and those of plugins may generate their files.
    generated = config.data.name == "synthetic" or plugins_of({"data": [config.data.name]})
    if not generated and not root.is_dir():
        if fault := _foreign_path(config.data.root):
            raise DataError(f"data.root: {fault}")
        kind = "is a file, not a folder" if root.is_file() else "does not exist"
        raise DataError(
            f"data.root: {root.absolute()} {kind}.\n"
            f"Expected: the {config.data.name} data set there. Fix: data.root=/path"
        )


def _foreign_path(path: str) -> str:
    """Return the message for a Windows path or a path with a shell variable, else ""."""
    if "$" in path:
        from hrseg.config.hints import VARIABLES

        return f"{path} contains a shell variable, which a config does not expand.\n{VARIABLES}"
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", path):
        linux = f"/mnt/{path[0].lower()}/{path[3:]}".replace("\\", "/")
        return f"{path} is a Windows path.\nExpected: a path of this system. Fix: in WSL {linux}"
    return ""


def set_threads(arguments: argparse.Namespace) -> None:
    """Set the number of CPU threads of torch, which the runtimes of exported files use too."""
    check_least(arguments, 1, "threads")
    if arguments.threads is not None:
        import torch

        torch.set_num_threads(arguments.threads)


def print_once(line: str) -> None:
    """Print a line in the first process of a distributed run only."""
    from hrseg.checkpoints.runs import is_first_process

    if is_first_process():
        print(printable(line))
