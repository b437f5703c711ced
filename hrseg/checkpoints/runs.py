"""Run folders `<runs>/<config name>/<date-time>/`, their locks, and the link `latest`."""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
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

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def dated_folder(home: Path) -> Path:
    """Create `home/<date-time>`, or `<date-time>-2` if that name is taken in the same second.

    This is for a single process. `hrseg.training.distributed.new_folder` creates one folder for
    all processes of a run.
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
    """Write `config.yaml` with absolute paths, so that it works from any working directory."""
    values = unresolved(config)
    paths = (("data", "root"), ("data", "cache"), ("data", "manifest"), ("model", "weights"))
    for section, key in paths:
        value = values[section][key]
        if isinstance(value, str) and "${" not in value and not is_remote(value):
            values[section][key] = str(Path(value).expanduser().absolute())
    text = plugin_note(config) + dump(values)
    write_bytes(folder / "config.yaml", text.encode(), durable)


def requeued_run(home: Path) -> Path | None:
    """Return the earlier run folder of this SLURM job step, if the job was requeued."""
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) < 1 or not _job():
        return None
    return max((run for run in home.glob(f"*{_job()}") if has_state(run)), default=None)


def has_state(run: Path) -> bool:
    """Return whether a run has a checkpoint to resume from, intact or damaged."""
    last = run / "checkpoints" / "last.ckpt"
    return last.is_file() or previous_of(last).is_file()


def newest_state(run: Path) -> Path:
    """Return `last.ckpt`, or the previous checkpoint with a warning if it is damaged."""
    return whole_checkpoint(run / "checkpoints" / "last.ckpt")


def is_first_process() -> bool:
    """Return whether this process is the first, which prints, of those started by one command."""
    ranks = [os.environ.get(name) for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK")]
    return next((rank for rank in ranks if rank is not None), "0") == "0"


def point_latest(run: Path) -> None:
    """Point the link `latest`, in the parent folder, at a run folder."""
    partial = run.with_name(f".latest-{os.getpid()}")
    partial.symlink_to(run.name)
    os.replace(partial, run.with_name("latest"))


def newest_run(runs: Path, name: str = "*") -> Path:
    """Return the run folder with the latest date among those with a checkpoint.

    Raises:
        ConfigError: if no run contains a checkpoint.
    """
    folder = f"{name}/*/checkpoints"
    files = [*runs.glob(f"{folder}/best.*ckpt"), *runs.glob(f"{folder}/last.*ckpt")]
    homes = {path.parent.parent for path in files if not path.parent.parent.is_symlink()}
    if not homes:
        searched = runs if name == "*" else runs / name
        raise ConfigError(
            f"{searched.absolute()} contains no run with a checkpoint.\n"
            "Expected: a run of `hrseg fit`, or the path of a file.\n"
            "Fix: `hrseg fit --config NAME`, or add --checkpoint FILE"
        )
    # Renamed folders have no date; they sort before dated ones.
    return max(homes, key=lambda run: (bool(re.match(r"\d{8}-\d{6}", run.name)), run.name))


def best_checkpoint(run: Path) -> Path:
    """Return `best.ckpt`, or `last.ckpt` if the run was never validated.

    If it is damaged, return the previous checkpoint with a warning.
    """
    best = whole_checkpoint(run / "checkpoints" / "best.ckpt")
    return best if best.is_file() else newest_state(run)


def checkpoint_at(path: Path) -> Path:
    """Return the best checkpoint of a run folder, the checkpoint at a path, or a downloaded one.

    If it is damaged, return the previous checkpoint with a warning. `is_remote` lists the names of
    weights to download.
    """
    if is_remote(path) and str(path) not in WORDS:
        return fetch(str(path))
    return best_checkpoint(path) if path.is_dir() else whole_checkpoint(path)


def refuse_links(run: Path) -> None:
    """Refuse a run folder with a symbolic link to a path outside of it.

    hrseg writes into run folders, and would write through such a link.

    Raises:
        ConfigError: if the folder contains such a link.
    """
    home = run.resolve()
    for parent, folders, files in os.walk(home):
        for name in (*folders, *files):
            link = Path(parent, name)
            target = Path(os.path.realpath(link)) if link.is_symlink() else home
            if not target.is_relative_to(home):
                raise ConfigError(
                    f"{link} leads out of its run folder, to {target}.\n"
                    "Expected: files and folders inside the run, because hrseg writes into it.\n"
                    "Fix: remove the link, or replace it with its target."
                )


def run_of(checkpoint: Path) -> Path | None:
    """Return the run folder that contains a checkpoint, if any."""
    run = checkpoint.absolute().parent.parent
    return run if (run / "config.yaml").is_file() else None


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Lock a run folder for this process, if it is the first process of the training.

    The system releases the lock when the process ends, even if it is killed. Locks are therefore
    never stale. POSIX record locks are not inherited by data workers, and they work on NFS.
    Windows and file systems without locks train without one.

    Raises:
        ConfigError: if another process trains in this folder.
    """
    if fcntl is None or not is_first_process():
        yield
        return
    with (run / ".lock").open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ConfigError(
                f"{run}: another process trains in this run folder ({owner}).\n"
                "Expected: one training per run folder.\n"
                "Fix: wait until that process ends or stop it, then resume; or start a new run."
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            (run / ".lock").unlink(missing_ok=True)


def _job() -> str:
    """Return the part of a folder name that identifies a SLURM job step, even if requeued."""
    job, step = os.environ.get("SLURM_JOB_ID"), os.environ.get("SLURM_STEP_ID", "")
    return f"-job{job}.{step}" if job and step.isdigit() else ""
