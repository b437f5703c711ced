"""Trainings of a benchmark, each a call of `hrseg fit`, and the file of their results."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from hrseg.errors import DataError, HrsegError
from hrseg.evaluation.results import read_scores

REPOSITORY = Path(__file__).parents[2]


def read_runs(path: Path, keys: Iterable[str]) -> list[dict[str, Any]]:
    """Return the finished runs of a file of results; none if it is missing.

    Raises:
        DataError: the file is damaged, or a run lacks one of the keys.
    """
    try:
        runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
        if all(set(keys) <= run.keys() for run in runs):
            return runs
    except (ValueError, AttributeError, TypeError):
        pass
    raise DataError(
        f"{path} contains no runs of this script.\n"
        f"Expected: a JSON list of runs. Fix: git checkout {path}, or --json OTHER_FILE"
    )


def fit(config: str, overrides: Sequence[str], runs: Path) -> dict[str, Any]:
    """Run `hrseg fit`, and return the content of its scores.json.

    An unfinished run in the folder is resumed.

    Args:
        config: name of a shipped config, or a YAML file.
        overrides: changes of the config.
        runs: folder of the run folders, for this training only.

    Raises:
        HrsegError: the command failed; the message is the end of its output.
    """
    words = ["-m", "hrseg", "fit", "--config", config, f"runs={runs}", *overrides]
    if unfinished := sorted(runs.glob("*/latest/checkpoints/last.ckpt")):
        words = ["-m", "hrseg", "fit", "--resume", str(unfinished[0].parents[1])]
    done = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        output = "\n".join(done.stdout.splitlines()[-3:])
        raise HrsegError(f"exit code {done.returncode}: python {shlex.join(words)}\n{output}")
    (scores,) = runs.glob("*/latest/scores.json")
    return read_scores(scores)


def commit() -> str:
    """Return the commit of hrseg, with the suffix -dirty if files differ from it."""
    words = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--exclude=*"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def run_script(main: Callable[[], None]) -> None:
    """Run the main function of a script; an expected error is a message without a traceback."""
    try:
        main()
    except HrsegError as problem:
        sys.exit(str(problem))
    except KeyboardInterrupt:
        sys.exit(130)
