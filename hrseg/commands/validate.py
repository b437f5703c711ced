"""`hrseg validate`: score a checkpoint per class and per scale."""

import argparse

from hrseg.commands._shared import (
    add_checkpoint,
    add_config,
    add_engine_device,
    add_threads,
    checkpoint_to_score,
    print_once,
    set_threads,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config with data set and protocol; default: the run's config.yaml")
    add_checkpoint(parser)
    add_engine_device(parser)
    add_threads(parser)


def run(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    set_threads(arguments)
    from hrseg.commands._scoring import validate

    folder = validate(config, checkpoint, home / "validate", arguments.device)
    print_once(f"scores: {folder / 'scores.json'}\npictures: {folder / 'predictions'}")
