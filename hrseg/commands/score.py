"""`hrseg score`: score mask files against ground-truth masks."""

import argparse
from pathlib import Path

from hrseg.commands._shared import add_config, config_of
from hrseg.errors import DataError
from hrseg.utils.files import check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config whose data section defines the classes and ids")
    for option, masks in (("--truth", "ground-truth masks"), ("--prediction", "predicted masks")):
        help = f"folder of the {masks} (required)"
        parser.add_argument(option, metavar="FOLDER", type=Path, required=True, help=help)
    parser.add_argument(
        "--out", metavar="FILE", type=Path, help="JSON file for the scores; default: none"
    )
    parser.add_argument(
        "--prediction-ids",
        choices=("raw", "train"),
        help="ids of the predicted masks: raw, as in the ground truth, or train, 0..K-1; "
        "default: train for masks of `hrseg predict`, or else raw",
    )


def run(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_output("--out", arguments.out, ("miou", "classes"))
    truth, prediction, out = arguments.truth, arguments.prediction, arguments.out
    for option, folder in (("--truth", truth), ("--prediction", prediction)):
        if not folder.is_dir():
            kind = "is a file" if folder.exists() else "does not exist"
            raise DataError(
                f"{option} {folder} {kind}.\nExpected: a folder of masks. Fix: {option} FOLDER"
            )
    config = config_of(arguments)
    from hrseg.evaluation.mask_scoring import score_folders

    score_folders(config, truth, prediction, out, arguments.prediction_ids)
