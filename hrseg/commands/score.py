"""`hrseg score`: score mask files against true ones."""

import argparse
from pathlib import Path

from hrseg.commands._shared import add_config, config_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config whose data section says classes and ids")
    parser.add_argument("--truth", type=Path, required=True, help="folder of true masks")
    parser.add_argument("--prediction", type=Path, required=True, help="folder of predicted masks")
    parser.add_argument("--out", type=Path, help="file for the scores as JSON")
    parser.add_argument(
        "--prediction-ids",
        choices=("raw", "train"),
        default="raw",
        help="predictions hold ids as the truth does (raw, the default) or 0..K-1 as hrseg's do",
    )


def run(arguments: argparse.Namespace) -> None:
    config = config_of(arguments)
    from hrseg.evaluation.mask_scoring import score_folders

    truth, prediction, out = arguments.truth, arguments.prediction, arguments.out
    score_folders(config, truth, prediction, out, arguments.prediction_ids)
