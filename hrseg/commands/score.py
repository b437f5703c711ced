"""`hrseg score`: score mask files against true ones."""

import argparse
from pathlib import Path

from hrseg.commands._shared import add_config, config_of
from hrseg.errors import DataError
from hrseg.utils.files import check_output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "config with the data section of the classes and ids")
    parser.add_argument("--truth", type=Path, required=True, help="folder of true masks")
    parser.add_argument("--prediction", type=Path, required=True, help="folder of predicted masks")
    parser.add_argument("--out", type=Path, help="file for the scores as JSON")
    parser.add_argument(
        "--prediction-ids",
        choices=("raw", "train"),
        help="predictions contain ids as the truth does (raw) or 0..K-1 (train); "
        "default: train beside the predict.json of `hrseg predict`, else raw",
    )


def check_folder(option: str, folder: Path) -> None:
    """Raise DataError if the folder of masks that an option names is missing."""
    if not folder.is_dir():
        kind = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"{option} {folder} {kind}.\nExpected: a folder of masks. Fix: {option} FOLDER"
        )


def run(arguments: argparse.Namespace) -> None:
    if arguments.out is not None:
        check_output("--out", arguments.out, ("miou", "classes"))
    for option in ("truth", "prediction"):
        check_folder(f"--{option}", getattr(arguments, option))
    config = config_of(arguments)
    from hrseg.evaluation.mask_scoring import score_folders

    truth, prediction, out = arguments.truth, arguments.prediction, arguments.out
    score_folders(config, truth, prediction, out, arguments.prediction_ids)
