"""`hrseg benchmark`: speed and memory of model, data and evaluation on this machine."""

import argparse
from pathlib import Path

from hrseg.commands._shared import (
    add_config,
    check_least,
    check_root,
    config_of,
    find_checkpoint,
)
from hrseg.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(function=lambda arguments: parser.print_help())
    commands = parser.add_subparsers(metavar="command")

    model = commands.add_parser("model", help="training step and inference: time, memory, MACs")
    add_config(model, "config whose network, losses and crop are measured; no data is read")
    model.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="default: the crop")
    model.add_argument("--batch", type=int, help="default: the config's for a device; inference: 1")
    model.add_argument("--steps", type=int, help="to time; default: 10, fewer if they are slow")
    model.set_defaults(function=_model)

    data = commands.add_parser("data", help="samples per second; does training wait for them?")
    add_config(data, "config whose data is read, and whose training step waits for it")
    data.add_argument("--seconds", type=float, default=5.0, help="per number of workers, about")
    data.add_argument("--no-model", action="store_true", help="leave the training step out")
    data.set_defaults(function=_data)

    evaluation = commands.add_parser("evaluation", help="a validation image: network, the rest")
    add_config(evaluation, "config whose validation images are evaluated, by its protocol")
    evaluation.add_argument("--images", type=int, default=10, help="at most; default: %(default)s")
    evaluation.add_argument(
        "--checkpoint", type=Path, help="weights, or an exported file; default: random"
    )
    evaluation.set_defaults(function=_evaluation)

    for command in (model, data, evaluation):
        command.add_argument("--json", metavar="FILE", type=Path, help="write the result as JSON")
        command.set_defaults(json_keys=("command", "machine"))


def _model(arguments: argparse.Namespace) -> None:
    check_least(arguments, 1, "batch", "steps")
    if arguments.size and min(arguments.size) < 32:
        raise ConfigError(f"--size {arguments.size[0]} {arguments.size[1]}: expected 32 or more.")
    config = config_of(arguments)
    from hrseg.benchmark.model import benchmark_model

    benchmark_model(config, arguments.size, arguments.batch, arguments.steps, arguments.json)


def _data(arguments: argparse.Namespace) -> None:
    check_least(arguments, 0.1, "seconds")
    config = config_of(arguments)
    check_root(config)
    from hrseg.benchmark.data import benchmark_data
    from hrseg.utils.system import keep_memory

    keep_memory()
    benchmark_data(config, arguments.seconds, not arguments.no_model, arguments.json)


def _evaluation(arguments: argparse.Namespace) -> None:
    check_least(arguments, 1, "images")
    config = config_of(arguments)
    check_root(config)
    checkpoint = find_checkpoint(arguments.checkpoint) if arguments.checkpoint else None
    from hrseg.benchmark.evaluation import benchmark_evaluation

    benchmark_evaluation(config, arguments.images, checkpoint, arguments.json)
