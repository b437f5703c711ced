"""Run folders: `<runs>/<config name>/<date-time>/`, and the link `latest` beside them."""

import os
import re
from datetime import datetime
from itertools import count
from pathlib import Path

from hrseg.checkpoints.hub import is_on_hub
from hrseg.checkpoints.integrity import previous_of, state_of, whole_checkpoint
from hrseg.config.loader import dump, unresolved
from hrseg.config.plugins import plugin_note
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.utils.files import write_bytes

_KEPT = ("best", "last")
_REQUEUED = "hpc_ckpt_*.ckpt"


def dated_folder(home: Path) -> Path:
    """Make `home/<date-time>`, or `<date-time>-2` where another was made in this second.

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
        if isinstance(value, str) and "${" not in value and not is_on_hub(value):
            values[section][key] = str(Path(value).expanduser().absolute())
    text = plugin_note(config) + dump(values)
    write_bytes(folder / "config.yaml", text.encode(), durable)


def requeued_run(home: Path) -> Path | None:
    """Return the run that this SLURM job was at when it was stopped to be started again."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) < 1 or not _job():
        return None
    runs = [run for run in home.glob(f"*{_job()}") if has_state(run)]
    return max(runs, default=None)


def has_state(run: Path) -> bool:
    """Return whether there is something to go on from, sound or not."""
    last = run / "checkpoints" / "last.ckpt"
    return last.is_file() or previous_of(last).is_file() or any(run.glob(_REQUEUED))


def newest_state(run: Path) -> Path:
    """Return `last.ckpt`, or what Lightning saved after it when SLURM took the machine back.

    If `last.ckpt` is damaged, the previous file with a warning.
    """
    last = whole_checkpoint(run / "checkpoints" / "last.ckpt")
    requeued = [path for path in run.glob(_REQUEUED) if path.is_file()]
    saved = [last, *(path for path in requeued if state_of(path) != "damaged")]
    return max((path for path in saved if path.is_file()), key=_changed, default=last)


def is_first_process() -> bool:
    """Return whether this is the process that speaks, among those that one command has started."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return next((rank for rank in ranks if rank is not None), "0") == "0"


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
    found = runs.glob(f"{name}/*/checkpoints/*.ckpt")
    files = [path for path in found if path.name.partition(".")[0] in _KEPT]
    homes = {path.parent.parent for path in files if not path.parent.parent.is_symlink()}
    if not homes:
        where = runs if name == "*" else runs / name
        raise ConfigError(
            f"no run with a checkpoint in {where.absolute()}.\n"
            "Start one with `hrseg fit --config ...`, or name a file with --checkpoint."
        )
    # A folder that somebody renamed has no date; it goes before those that have one.
    return max(homes, key=lambda run: (bool(re.match(r"\d{8}-\d{6}", run.name)), run.name))


def best_checkpoint(run: Path) -> Path:
    """Return `best.ckpt`, or `last.ckpt` of a run that was never validated.

    If it is damaged, the previous file with a warning.
    """
    best = whole_checkpoint(run / "checkpoints" / "best.ckpt")
    return best if best.is_file() else whole_checkpoint(best.with_name("last.ckpt"))


def checkpoint_at(path: Path) -> Path:
    """Return the checkpoint that a path means, of a run folder its best one.

    If it is damaged, the previous file with a warning.
    """
    return best_checkpoint(path) if path.is_dir() else whole_checkpoint(path)


def refuse_links(run: Path) -> None:
    """Refuse a run folder, maybe another's, in which hrseg would write through a link out of it.

    Raises:
        ConfigError: a link in it leads out.
    """
    home = run.resolve()
    for where, folders, files in os.walk(home):
        for name in (*folders, *files):
            link = Path(where, name)
            goal = Path(os.path.realpath(link)) if link.is_symlink() else home
            if not goal.is_relative_to(home):
                raise ConfigError(
                    f"{link} leads out of its run, to {goal}: hrseg writes in there.\n"
                    "Put what it leads to in its place, or remove it."
                )


def run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that a checkpoint lies in, if any."""
    run = checkpoint.absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None


def _job() -> str:
    """Return what tells a step of a SLURM job from others, also after the job was requeued."""
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "")
    return f"-job{job}.{step}" if job and step.isdigit() else ""


def _changed(path: Path) -> float:
    return path.stat().st_mtime
