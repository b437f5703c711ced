"""`hrseg score`: score mask files against true ones."""

import argparse
from pathlib import Path

from hrseg.commands._shared import add_config, config_name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_config(parser, "config whose data section says classes and ids")
    parser.add_argument("--truth", required=True, help="folder of true masks")
    parser.add_argument("--prediction", required=True, help="folder of predicted masks")
    parser.add_argument("--out", help="file for the scores as JSON")
    parser.add_argument(
        "--prediction-ids",
        choices=("raw", "train"),
        default="raw",
        help="predictions hold ids as the truth does (raw, the default) or 0..K-1 as hrseg's do",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score a folder of masks by the classes and ids of a config."""
    from hrseg.config.loader import load_config

    config = load_config(config_name(arguments), arguments.overrides)
    from hrseg.evaluation.mask_scoring import score_folders

    out = Path(arguments.out) if arguments.out else None
    truth, prediction = Path(arguments.truth), Path(arguments.prediction)
    score_folders(config, truth, prediction, out, arguments.prediction_ids)
