"""`hrseg validate`: score a checkpoint per class and per scale."""

import argparse

from hrseg.commands._shared import add_config, checkpoint_to_score, print_once, set_threads


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config to score by; default: the run's own")
    parser.add_argument("--checkpoint", help="file or run; default: the best of the newest run")
    parser.add_argument("--threads", type=int, help="of the processor; default: one per core")


def run(arguments: argparse.Namespace) -> None:
    config, checkpoint, home = checkpoint_to_score(arguments)
    set_threads(arguments)
    from hrseg.commands._scoring import validate

    folder = validate(config, checkpoint, home / "validate")
    print_once(f"scores: {folder / 'scores.json'}\npictures: {folder / 'predictions'}")
