"""`hrseg test`: write masks of the test split for a benchmark server."""

import argparse

from hrseg.commands._shared import (
    add_checkpoint,
    add_config,
    add_engine_device,
    checkpoint_to_score,
    print_once,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config with data set and protocol; default: the run's config.yaml")
    add_checkpoint(parser)
    add_engine_device(parser)


def run(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    from hrseg.commands._scoring import test

    submission = test(config, checkpoint, home / "test", arguments.device)
    print_once(f"masks: {submission.parent / 'masks'}")
    if submission.is_file():
        print_once(f"checked file for the server: {submission}")
