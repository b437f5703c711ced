"""Run folders: `<runs>/<config name>/<date-time>/`, and the link `latest` beside them."""

import os
import re
from datetime import datetime
from itertools import count
from pathlib import Path

from hrseg.checkpoints.hub import fetch, is_remote
from hrseg.checkpoints.integrity import previous_of, whole_checkpoint
from hrseg.checkpoints.published import WORDS
from hrseg.config.loader import dump, unresolved
from hrseg.config.plugins import plugin_note
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.utils.files import write_bytes


def dated_folder(home: Path) -> Path:
    """Make `home/<date-time>`, or `<date-time>-2` if another was made in this second.

    For one process; `hrseg.training.distributed.new_folder` makes one for all processes of a run.
    """
    started = datetime.now().strftime("%Y%m%d-%H%M%S") + _job()
    folder = home / started
    for number in count(2):
        try:
            folder.mkdir(parents=True)
            break
        except FileExistsError:
            folder = home / f"{started}-{number}"
    return folder


def write_config(config: Config, folder: Path, durable: bool = False) -> None:
    """Write `config.yaml` with absolute paths, so that the run works from any folder."""
    values = unresolved(config)
    paths = (("data", "root"), ("data", "cache"), ("data", "manifest"), ("model", "weights"))
    for section, key in paths:
        value = values[section][key]
        if isinstance(value, str) and "${" not in value and not is_remote(value):
            values[section][key] = str(Path(value).expanduser().absolute())
    text = plugin_note(config) + dump(values)
    write_bytes(folder / "config.yaml", text.encode(), durable)


def requeued_run(home: Path) -> Path | None:
    """Return the run of this SLURM job before it was requeued, if the job was requeued."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) < 1 or not _job():
        return None
    return max((run for run in home.glob(f"*{_job()}") if has_state(run)), default=None)


def has_state(run: Path) -> bool:
    """Return whether a run has a checkpoint to resume from, intact or damaged."""
    last = run / "checkpoints" / "last.ckpt"
    return last.is_file() or previous_of(last).is_file()


def newest_state(run: Path) -> Path:
    """Return `last.ckpt`; if it is damaged, the previous file with a warning."""
    return whole_checkpoint(run / "checkpoints" / "last.ckpt")


def is_first_process() -> bool:
    """Return whether this process prints, among those that one command has started."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def point_latest(run: Path) -> None:
    """Point the link `latest` beside a run folder at it."""
    partial = run.with_name(f".latest-{os.getpid()}")
    partial.symlink_to(run.name)
    os.replace(partial, run.with_name("latest"))


def newest_run(runs: Path, name: str = "*") -> Path:
    """Return the run folder with the latest date that contains a checkpoint.

    Raises:
        ConfigError: no run contains one.
    """
    folder = f"{name}/*/checkpoints"
    files = [*runs.glob(f"{folder}/best.*ckpt"), *runs.glob(f"{folder}/last.*ckpt")]
    homes = {path.parent.parent for path in files if not path.parent.parent.is_symlink()}
    if not homes:
        searched = runs if name == "*" else runs / name
        raise ConfigError(
            f"no run with a checkpoint in {searched.absolute()}.\n"
            "Start one with `hrseg fit --config ...`, or name a file with --checkpoint."
        )
    # A folder that somebody renamed has no date; it sorts before those that have one.
    return max(homes, key=lambda run: (bool(re.match(r"\d{8}-\d{6}", run.name)), run.name))


def best_checkpoint(run: Path) -> Path:
    """Return `best.ckpt`, or `last.ckpt` of a run without a validation.

    If it is damaged, the previous file with a warning.
    """
    best = whole_checkpoint(run / "checkpoints" / "best.ckpt")
    return best if best.is_file() else newest_state(run)


def checkpoint_at(path: Path) -> Path:
    """Return the best checkpoint of a run folder, the checkpoint at a path, or a downloaded one.

    If it is damaged, the previous file with a warning. For names to download see `is_remote`.
    """
    if is_remote(path) and str(path) not in WORDS:
        return fetch(str(path))
    return best_checkpoint(path) if path.is_dir() else whole_checkpoint(path)


def refuse_links(run: Path) -> None:
    """Refuse a run folder in which hrseg would write through a link out of it.

    Raises:
        ConfigError: a link in it leads out.
    """
    home = run.resolve()
    for parent, folders, files in os.walk(home):
        for name in (*folders, *files):
            link = Path(parent, name)
            target = Path(os.path.realpath(link)) if link.is_symlink() else home
            if not target.is_relative_to(home):
                raise ConfigError(
                    f"{link} leads out of its run, to {target}: hrseg writes in there.\n"
                    "Fix: replace the link by its target, or remove it."
                )


def run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that contains a checkpoint, if any."""
    run = checkpoint.absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None


def _job() -> str:
    """Return the part of a folder's name that distinguishes steps of SLURM jobs, also requeued."""
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "")
    return f"-job{job}.{step}" if job and step.isdigit() else ""
