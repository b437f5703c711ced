"""`hrseg benchmark`: speed and memory of model, data and evaluation on this machine."""

import argparse
from pathlib import Path
from typing import Any

from hrseg.commands._shared import (
    add_command,
    add_config,
    check_least,
    check_root,
    config_of,
    find_checkpoint,
)
from hrseg.errors import ConfigError
from hrseg.utils.files import write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    model = add_command(
        commands, "model", "measure time, memory and MACs of a training step and of inference"
    )
    add_config(model, "config of the network, the losses and the crop; no data is read")
    size = "height and width of the input in pixels; default: the crop of the config"
    model.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help=size)
    batch = "images per step; default: the config's batch per device for training, 1 for inference"
    model.add_argument("--batch", type=int, help=batch)
    model.add_argument(
        "--steps", type=int, help="number of timed steps; default: 10, fewer for slow steps"
    )
    model.add_argument(
        "--profile",
        action="store_true",
        help="print the operators that take most of the time, their meaning, and advice",
    )
    model.set_defaults(function=_model)

    data = add_command(
        commands, "data", "measure samples per second, and whether training waits for them"
    )
    add_config(data, "config of the data set, the loader and the training step")
    seconds = "approximate time per number of workers; default: %(default)s"
    data.add_argument("--seconds", type=float, default=5.0, help=seconds)
    data.add_argument("--no-model", action="store_true", help="skip the training step")
    data.set_defaults(function=_data)

    evaluation = add_command(
        commands, "evaluation", "measure the evaluation of images, inside and outside the network"
    )
    add_config(evaluation, "config of the validation images and the evaluation protocol")
    evaluation.add_argument(
        "--images", type=int, default=10, help="largest number of images; default: %(default)s"
    )
    checkpoint = "checkpoint, run folder or exported file; default: random weights"
    evaluation.add_argument("--checkpoint", type=Path, help=checkpoint)
    evaluation.set_defaults(function=_evaluation)

    for command in (model, data, evaluation):
        command.add_argument(
            "--json", metavar="FILE", type=Path, help="JSON file for the result; default: none"
        )
        command.set_defaults(json_keys=("command", "machine"))


def _model(arguments: argparse.Namespace) -> None:
    check_least(arguments, 1, "batch", "steps")
    if arguments.size and min(arguments.size) < 32:
        height, width = arguments.size
        raise ConfigError(
            f"--size {height} {width} is too small.\n"
            f"Expected: at least 32. Fix: --size {max(height, 32)} {max(width, 32)}"
        )
    config = config_of(arguments)
    from hrseg.benchmark.model import benchmark_model

    options = (arguments.size, arguments.batch, arguments.steps, arguments.profile)
    _write(arguments, benchmark_model(config, *options))


def _data(arguments: argparse.Namespace) -> None:
    check_least(arguments, 0.1, "seconds")
    config = config_of(arguments)
    check_root(config)
    from hrseg.benchmark.data import benchmark_data
    from hrseg.utils.system import keep_memory

    keep_memory()
    _write(arguments, benchmark_data(config, arguments.seconds, not arguments.no_model))


def _evaluation(arguments: argparse.Namespace) -> None:
    check_least(arguments, 1, "images")
    config = config_of(arguments)
    check_root(config)
    checkpoint = find_checkpoint(arguments.checkpoint) if arguments.checkpoint else None
    from hrseg.benchmark.evaluation import benchmark_evaluation

    _write(arguments, benchmark_evaluation(config, arguments.images, checkpoint))


def _write(arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    if arguments.json is not None:
        write_json(arguments.json, result)
