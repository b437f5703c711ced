"""Checkpoint callback, and atomic and durable checkpoint writing."""

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
    """Write and verify a new checkpoint before it replaces the old one.

    The old checkpoint is kept as `<name>.previous.ckpt`. One of the two is intact at any time.
    """

    def __init__(self) -> None:
        self._written: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; after a ConfigError the existing checkpoints are unchanged."""
        path = Path(path)
        try:
            self._save(checkpoint, path)
        except (ConfigError, OSError) as error:
            problem = error if isinstance(error, ConfigError) else cannot_write(path, str(error))
            raise ConfigError(
                f"{problem}\nThe existing checkpoints are unchanged. Fix: make the disk writable, "
                f"then continue with hrseg fit --resume {run_of(path) or ''}".rstrip()
            ) from error
        self._written.add(path)

    def _save(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for partial in path.parent.glob(f"{PARTIAL}*{path.suffix}"):  # from killed processes
            partial.unlink(missing_ok=True)
        # A damaged file of another process must not replace the intact previous checkpoint.
        keep = path in self._written or (path.is_file() and state_of(path) != "damaged")
        with replacing(path, durable=True, previous=previous_of(path) if keep else None) as partial:
            if problem := _write(checkpoint, partial):
                raise cannot_write(path, problem)
            with partial.open("rb+") as file:
                sync(file.fileno())
                if hasattr(os, "posix_fadvise"):  # read back from the disk, not from memory
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if state_of(partial) != "whole":
                raise cannot_write(path, "the disk returned other bytes than were written.")

    def load_checkpoint(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Read a checkpoint, or the previous one if it is damaged."""
        return super().load_checkpoint(whole_checkpoint(Path(path)), *args, **kwargs)


def _write(checkpoint: dict[str, Any], path: Path) -> str:
    """Write a file; return the message of an error, whose frames would keep the file open."""
    try:
        torch.save(checkpoint, path)
    except RuntimeError as error:  # for example a full disk
        return str(error).partition("\n")[0] or "unknown error"
    return ""


class RunCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that reads the best score from the best checkpoint on resume.

    Lightning loses the best score if the folder was moved, and otherwise uses the score in the
    resumed state. The best checkpoint may be newer; the next validation would overwrite it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        best = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        paths = ("best_model_path", "kth_best_model_path")
        present = {
            **{name: str(best) if state_dict[name] else "" for name in paths},
            "best_k_models": {str(best): score for score in state_dict["best_k_models"].values()},
            "last_model_path": "",
            "dirpath": self.dirpath,
        }
        super().load_state_dict({**state_dict, **present})
        self.current_score = state_dict["current_score"]
        if self.monitor is not None:
            self._restore_best(best)

    def _restore_best(self, best: Path) -> None:
        """Restore the score of the best checkpoint; without an intact one, forget the score."""
        try:
            callbacks = read_checkpoint(whole_checkpoint(best)).get("callbacks", {})
        except ConfigError:
            if self.best_k_models:
                warnings.warn(
                    f"{best} is missing or damaged; the next validation writes a new one",
                    stacklevel=2,
                )
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""
            return
        score = callbacks.get(self.state_key, {}).get("best_model_score")
        if score is not None:
            self.best_model_score = self.kth_value = self.current_score = score
            self.best_model_path = self.kth_best_model_path = str(best)
            self.best_k_models = {str(best): score}
