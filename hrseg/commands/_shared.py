"""What a command acts on: the run, the checkpoint and the config that its arguments mean."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hrseg.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hrseg.config.schema import Config


def config_name(arguments: argparse.Namespace) -> str:
    """Return what `--config` names; ConfigError where a command needs one."""
    if not arguments.config:
        raise ConfigError(
            "which config? Say --config FILE; `hrseg configs` lists the shipped ones."
        )
    return str(arguments.config)


def run_to_resume(arguments: argparse.Namespace) -> Path:
    """Return the run folder that `fit --resume` goes on in; its own config rules."""
    from hrseg.checkpoints.runs import has_state, newest_run, refuse_links
    from hrseg.config.loader import load_config

    if arguments.resume:
        run = Path(arguments.resume).resolve()  # `latest` is a link to the run, not its name
        if not has_state(run):
            raise ConfigError(f"{run} is no run folder: it has no checkpoints/last.ckpt.")
        refuse_links(run)
        return run
    if arguments.config:
        config = load_config(arguments.config, arguments.overrides)
        return newest_run(Path(config.runs), config.name)
    return run_of_arguments(arguments)


def run_of_arguments(arguments: argparse.Namespace) -> Path:
    """Return the newest run where `runs=` and `name=` say, or under runs/."""
    from hrseg.checkpoints.runs import newest_run

    said = dict(pair.split("=", 1) for pair in arguments.overrides if "=" in pair)
    return newest_run(Path(said.get("runs", "runs")), said.get("name", "*"))


def checkpoint_to_score(arguments: argparse.Namespace) -> tuple["Config", Path, Path]:
    """Return the config, the checkpoint, and the folder of the run that it belongs to."""
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
    if not checkpoint.is_file():
        raise ConfigError(f"no such checkpoint: {checkpoint.absolute()}")
    check_root(config)
    # Neither what shortened the training nor the machines that it ran on matter here.
    for name in _OF_TRAINING:
        if not any(pair.startswith(f"trainer.{name}=") for pair in arguments.overrides):
            config.trainer.pop(name, None)
    return config, checkpoint, run or Path(config.runs) / config.name


_OF_TRAINING = (
    "limit_val_batches fast_dev_run overfit_batches accelerator devices num_nodes strategy "
    "sync_batchnorm"
).split()


def check_root(config: "Config") -> None:
    """Say that the data set is missing before the seconds that torch takes to import."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        raise DataError(
            f"data.root: no folder {root.absolute()}.\n"
            f"Expected the {config.data.name} data set there; say where it is: data.root=/path"
        )


def check_weights(config: "Config", overrides: Sequence[str]) -> None:
    """Stop where the weights to start from are missing; a fast_dev_run only tries the way."""
    file = config.model.weights
    # timm/<name> lies on a hub, and is looked for there.
    if file is None or file.startswith("timm/") or Path(file).expanduser().is_file():
        return
    said = any(pair.startswith("model.weights=") for pair in overrides)
    if config.trainer.get("fast_dev_run") and not said:
        print(f"fast_dev_run: model.weights, {file}, is not there; random ones take its place")
        config.model.weights = None
        return
    raise ConfigError(
        f"model.weights: no file {Path(file).absolute()}.\n"
        "Expected a checkpoint to start from. Say where it is: model.weights=/path; "
        "model.weights=null trains from scratch."
    )
