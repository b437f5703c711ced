"""Where runs live: `<runs>/<config name>/<date-time>/`, and `latest` beside them."""

import os
import re
from datetime import datetime
from itertools import count
from pathlib import Path

from hrseg.errors import ConfigError

_KEPT = ("best", "last")


def dated_folder(home: Path) -> Path:
    """Make `home/<date-time>`, or `<date-time>-2` where another was made in this second."""
    if os.environ.get("LOCAL_RANK", "0") != "0" and "HRSEG_RUN" in os.environ:
        # Lightning starts a process per further device; they share the first one's folder.
        return Path(os.environ["HRSEG_RUN"])
    started = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = home / started
    for number in count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = home / f"{started}-{number}"
    os.environ["HRSEG_RUN"] = str(folder.absolute())
    return folder


def point_latest(run: Path) -> None:
    """Point the link `latest` beside a run folder at it."""
    partial = run.with_name(f".latest-{os.getpid()}")
    partial.symlink_to(run.name)
    os.replace(partial, run.with_name("latest"))


def newest_run(runs: Path, name: str = "*") -> Path:
    """Return the run folder with the latest date that holds a checkpoint.

    Raises:
        ConfigError: there is none.
    """
    files = [path for path in runs.glob(f"{name}/*/checkpoints/*.ckpt") if path.stem in _KEPT]
    found = {path.parent.parent for path in files if not path.parent.parent.is_symlink()}
    if not found:
        where = runs if name == "*" else runs / name
        raise ConfigError(
            f"no run with a checkpoint in {where.absolute()}.\n"
            "Start one with `hrseg fit --config ...`, or name a file with --checkpoint."
        )
    # A folder that somebody renamed has no date; it goes before those that have one.
    return max(found, key=lambda run: (bool(re.match(r"\d{8}-\d{6}", run.name)), run.name))


def best_checkpoint(run: Path) -> Path:
    """Return `best.ckpt`, or `last.ckpt` of a run that was never validated."""
    best = run / "checkpoints" / "best.ckpt"
    return best if best.is_file() else best.with_name("last.ckpt")


def run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if any."""
    run = checkpoint.absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None
