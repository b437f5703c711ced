"""Where runs live: `<runs>/<config name>/<date-time>/`, and `latest` beside them."""

import os
from datetime import datetime
from itertools import count
from pathlib import Path

from hrseg.errors import ConfigError


def new_run(runs: Path, name: str) -> Path:
    """Make the folder of a run that starts now, and point `latest` at it."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and "HRSEG_RUN" in os.environ:
        # Lightning starts a process per further device; they share the first one's folder.
        return Path(os.environ["HRSEG_RUN"])
    home = runs / name
    started = timestamp()
    run = home / started
    for number in count(2):
        try:
            run.mkdir(parents=True)
            break
        except FileExistsError:  # another run of this second
            run = home / f"{started}-{number}"
    partial = home / f".latest-{os.getpid()}"
    partial.symlink_to(run.name)
    os.replace(partial, home / "latest")
    os.environ["HRSEG_RUN"] = str(run.absolute())
    return run


def newest_run(runs: Path, name: str = "*") -> Path:
    """Return the run folder with the latest date that holds a checkpoint.

    Raises:
        ConfigError: there is none.
    """
    found = [path.parent.parent for path in runs.glob(f"{name}/*/checkpoints/last.ckpt")]
    found = [run for run in found if not run.is_symlink()]
    if not found:
        where = runs if name == "*" else runs / name
        raise ConfigError(
            f"no run with a checkpoint in {where.absolute()}.\n"
            "Start one with `hrseg fit --config ...`, or name a file with --checkpoint."
        )
    return max(found, key=lambda run: run.name)


def best_checkpoint(run: Path) -> Path:
    """Return `best.ckpt`, or `last.ckpt` of a run that was never validated."""
    best = run / "checkpoints" / "best.ckpt"
    return best if best.is_file() else best.with_name("last.ckpt")


def run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if any."""
    run = checkpoint.absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None


def timestamp() -> str:
    """Return a name that sorts by time."""
    return datetime.now().strftime("%Y%m%d-%H%M%S")
