"""`hrseg init`: inspect a folder of images and masks, and write a config for it."""

import argparse
import shlex
from pathlib import Path

from hrseg.errors import ConfigError, DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", help="folder that contains images and masks")
    parser.add_argument(
        "--out", metavar="FILE", help="config to write; default: <folder name>.yaml"
    )


def _about_weights() -> list[str]:
    """Return lines on the download of the initial weights, and on training without a network."""
    from hrseg.checkpoints.hub import describe_download
    from hrseg.data.analysis.suggest_config import BACKBONE, INITIAL_WEIGHTS

    return [
        f"training starts from pretrained {describe_download(INITIAL_WEIGHTS, BACKBONE)},",
        "downloaded at its start. Without a network: model.weights=null, or the path of a file.",
    ]


def _refuse_annotations(root: Path) -> None:
    """Raise DataError if the folder has annotations that `hrseg data import` reads."""
    from hrseg.data.formats import recognise

    if (name := recognise(root)) not in (None, "csv"):  # `inspect_folder` reads lists of pairs
        out = f"{root.resolve().name}-imported"
        command = f"hrseg data import {shlex.quote(str(root))} {shlex.quote(out)}"
        raise DataError(
            f"{root.absolute()} has annotations ({name}), but no masks.\n"
            f"Expected: a folder of images and masks. Fix: {command}"
        )


def run(arguments: argparse.Namespace) -> None:
    from hrseg.data.analysis.suggest_config import inspect_folder, write_config

    root = Path(arguments.folder)
    out = Path(arguments.out or f"{root.resolve().name}.yaml")
    if out.exists():
        raise ConfigError(
            f"{out} exists already. It was not overwritten.\n"
            "Expected: a new file. Fix: --out OTHER_FILE"
        )
    try:
        text = write_config(inspect_folder(root))
    except DataError:
        _refuse_annotations(root)
        raise
    out.write_text(text, encoding="utf-8")
    print(text.partition("\nname: ")[0])  # the comments at the top
    for line in _about_weights():
        print(line)
    quoted = shlex.quote(str(out))
    print(
        f"wrote {out}. Read it, then check every file and train:\n"
        f"hrseg data check --config {quoted}\nhrseg fit --config {quoted}"
    )
