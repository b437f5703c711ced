"""`hrseg test`: write masks of the test split for a benchmark's server."""

import argparse

from hrseg.commands._shared import add_config, checkpoint_to_score, print_once


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config to predict by; default: the run's own")
    parser.add_argument("--checkpoint", help="file or run; default: the best of the newest run")


def run(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    from hrseg.commands._scoring import test

    submission = test(config, checkpoint, home / "test")
    print_once(f"masks: {submission.parent / 'masks'}")
    if submission.is_file():
        print_once(f"for the server, checked: {submission}")
