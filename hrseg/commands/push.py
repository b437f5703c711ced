"""`hrseg push`: publish the model of a run on the Hugging Face Hub, with a model card."""

import argparse
import re
from pathlib import Path

from hrseg.commands._shared import add_overrides, find_checkpoint
from hrseg.errors import ConfigError
from hrseg.utils.console import echo

_EXAMPLES = "apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0, other"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="run folder, whose best checkpoint is published")
    parser.add_argument(
        "repository", metavar="USER/NAME", help="repository on the Hugging Face Hub"
    )
    add_overrides(parser)
    licence = f"licence of the model, an identifier of the Hub such as {_EXAMPLES} (required)"
    parser.add_argument("--license", help=licence)
    parser.add_argument("--private", action="store_true", help="create a private repository")
    parser.add_argument(
        "--dry-run", action="store_true", help="write the folder <run>/hub without an upload"
    )
    pictures = "add pictures of the validation, which contain images of the data set"
    parser.add_argument("--pictures", action="store_true", help=pictures)


def run(arguments: argparse.Namespace) -> None:
    repository, run = arguments.repository, Path(arguments.run)
    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repository):
        raise ConfigError(
            f"{repository} is not the name of a repository.\n"
            f"Expected: USER/NAME. Fix: `hrseg push {run} USER/{run.resolve().name}`"
        )
    if not re.fullmatch(r"[a-z0-9.-]{2,40}", arguments.license or ""):
        fault = f"is {arguments.license}" if arguments.license else "is missing"
        raise ConfigError(
            f"--license {fault}.\n"
            f"Expected: an identifier of the Hub, for example {_EXAMPLES}. The terms of the data "
            "set may restrict the choice.\n"
            f"Fix: `hrseg push {run} {repository} --license apache-2.0`"
        )
    if not run.is_dir():
        raise ConfigError(
            f"{run} is not a run folder.\n"
            "Expected: runs/<config>/<date-time>, or its link `latest`."
        )
    find_checkpoint(run)
    from hrseg.checkpoints.runs import refuse_links

    refuse_links(run)
    from hrseg.evaluation.hub_model import write_model_folder
    from hrseg.evaluation.results import open_evaluation

    folder = run.resolve() / "hub"
    evaluation = open_evaluation(run, arguments.overrides)
    files = write_model_folder(
        evaluation, folder, repository, arguments.license, arguments.pictures
    )
    for file in files:
        echo(f"{file.relative_to(folder)}  {file.stat().st_size / 1e6:.2f} MB")
    if arguments.dry_run:
        echo(f"dry run: {folder} was written, nothing was uploaded")
        return
    from hrseg.commands._push import upload

    echo(f"published: {upload(folder, files, repository, arguments.private)}")
