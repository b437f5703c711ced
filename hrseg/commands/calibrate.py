"""`hrseg calibrate`: fit the temperature of a run's confidence on the validation split."""

import argparse
from pathlib import Path

from hrseg.commands._shared import (
    add_overrides,
    add_threads,
    check_root,
    find_checkpoint,
    run_of_arguments,
    set_threads,
)
from hrseg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", help="run folder; default: the newest run")
    add_overrides(parser)
    parser.add_argument(
        "--device", help="cpu, cuda, cuda:1 or mps; default: cuda if available, or else cpu"
    )
    add_threads(parser)


def run(arguments: argparse.Namespace) -> None:
    from hrseg.checkpoints.runs import refuse_links, run_of
    from hrseg.config.loader import load_config

    checkpoint = find_checkpoint(Path(run_of_arguments(arguments)))
    folder = run_of(checkpoint)
    if folder is None or checkpoint.suffix != ".ckpt":
        raise ConfigError(
            f"{checkpoint} is not a checkpoint of a run folder.\n"
            "Expected: a run of `hrseg fit`, whose data set and checkpoint are known. "
            "Fix: hrseg calibrate runs/NAME/latest"
        )
    refuse_links(folder)
    config = load_config(folder / "config.yaml", arguments.overrides)
    check_root(config)
    set_threads(arguments)
    from hrseg.commands._calibrate import calibrate

    calibrate(config, checkpoint, folder, arguments.device)
