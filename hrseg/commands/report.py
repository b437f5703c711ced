"""`hrseg report`: write the HTML report of a run or of a validation."""

import argparse

from hrseg.commands._shared import add_overrides, run_of_arguments
from hrseg.errors import ConfigError, DataError
from hrseg.utils.console import echo, note


def add_arguments(parser: argparse.ArgumentParser) -> None:
    run = "run folder, or one of its validate/ folders; default: the newest run"
    parser.add_argument("run", nargs="?", help=run)
    add_overrides(parser)
    images = "largest number of pictures in the report; default: %(default)s"
    parser.add_argument("--images", type=int, default=60, help=images)


def run(arguments: argparse.Namespace) -> None:
    from hrseg.checkpoints.runs import refuse_links, run_of

    folder = run_of_arguments(arguments)
    if folder.is_file():
        run = run_of(folder)
        fix = f"hrseg report {run}" if run else f"hrseg validate --checkpoint {folder}"
        raise ConfigError(
            f"{folder} is a file.\n"
            f"Expected: a run folder, or one of its validate/ folders. Fix: `{fix}`"
        )
    if not folder.is_dir():
        raise ConfigError(
            f"{folder.absolute()} does not exist.\n"
            "Expected: a run folder, or one of its validate/ folders.\n"
            "Fix: `hrseg report` without a folder uses the newest run."
        )
    refuse_links(folder)
    from hrseg.evaluation.analysis import write_details
    from hrseg.evaluation.leakage import write_leakage
    from hrseg.evaluation.report import write_report
    from hrseg.evaluation.results import open_evaluation

    evaluation = open_evaluation(folder, arguments.overrides)
    try:
        write_details(evaluation)
        write_leakage(evaluation)
    except DataError as error:
        note(f"no details and no pictures: {error}")
    echo(f"report: {write_report(folder, arguments.overrides, arguments.images)}")
