"""Checkpoint callbacks and atomic, durable saving."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from hrseg.checkpoints.integrity import previous_of, state_of, whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import run_of
from hrseg.errors import ConfigError
from hrseg.utils.files import PARTIAL, cannot_write, replacing, sync


class DurableCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside the old one, read it back, and only then replace the old one.

    The old one stays as `<name>.previous.ckpt`. At every moment, and after a loss of power, one of
    the two is intact, and `whole_checkpoint` returns it.
    """

    def __init__(self) -> None:
        """Start with nothing written."""
        self._written: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ConfigError: the disk is full, or returns other bytes than were written. The existing
                checkpoints are unchanged.
        """
        path = Path(path)
        try:
            self._save(checkpoint, path)
        except (ConfigError, OSError) as error:
            run = run_of(path)
            problem = error if isinstance(error, ConfigError) else cannot_write(path, str(error))
            raise ConfigError(
                f"{problem}\nThe existing checkpoints are unchanged. When the disk is writable "
                f"again, continue with: hrseg fit --resume {run or ''}".rstrip()
            ) from error
        self._written.add(path)

    def _save(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{PARTIAL}*{path.suffix}"):  # by a process that was killed
            left.unlink(missing_ok=True)
        # A damaged file of another process must not replace the intact previous one.
        keep = path in self._written or (path.is_file() and state_of(path) != "damaged")
        with replacing(path, durable=True, previous=previous_of(path) if keep else None) as partial:
            if fault := _write(checkpoint, partial):
                raise cannot_write(path, fault)
            _forget_pages(partial)
            if state_of(partial) != "whole":
                raise cannot_write(path, "the disk returned other bytes than were written.")

    def load_checkpoint(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Read a checkpoint, or the previous one if it is damaged."""
        return super().load_checkpoint(whole_checkpoint(Path(path)), *args, **kwargs)


def _write(checkpoint: dict[str, Any], path: Path) -> str:
    """Write a file; return the error of torch's writer, without the frames that keep it open."""
    try:
        torch.save(checkpoint, path)
    except RuntimeError as error:  # also if the disk is full
        return str(error).partition("\n")[0] or "unknown error"
    return ""


def _forget_pages(path: Path) -> None:
    """Write a file to the disk, and let its next reader ask the disk, not the memory."""
    with path.open("rb+") as file:
        sync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that reads the best score from the best file when a run is resumed.

    Lightning forgets the best score if the folder's path has changed. Otherwise it takes the score
    of the resumed state, which may be older than the best file: the next validation, however bad,
    would overwrite it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state, with the present paths of its files."""

        def moved(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        super().load_state_dict(
            {
                **state_dict,
                **{name: moved(state_dict[name]) for name in paths},
                "dirpath": self.dirpath,
                "best_k_models": {
                    moved(path): score for path, score in state_dict["best_k_models"].items()
                },
            }
        )
        self.current_score = state_dict["current_score"]
        if self.monitor is not None:
            self._take_best()

    def _take_best(self) -> None:
        """Take the score in the best file; without an intact file the next score is the best."""
        kept = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        try:
            callbacks = read_checkpoint(whole_checkpoint(kept)).get("callbacks")
        except ConfigError:
            if self.best_k_models:
                warnings.warn(f"no intact {kept}: the next validation writes one", stacklevel=2)
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""
            return
        state = callbacks.get(self.state_key) if isinstance(callbacks, dict) else None
        score = state.get("best_model_score") if isinstance(state, dict) else None
        if isinstance(score, torch.Tensor) and score.numel() == 1:
            self.best_model_score = self.kth_value = self.current_score = score
            self.best_model_path = self.kth_best_model_path = str(kept)
            self.best_k_models = {str(kept): score}
