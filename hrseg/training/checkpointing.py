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

    The old one stays as `<name>.previous.ckpt`: one of the two is intact at every moment.
    """

    def __init__(self) -> None:
        self._written: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint; a ConfigError leaves the existing ones unchanged."""
        path = Path(path)
        try:
            self._save(checkpoint, path)
        except (ConfigError, OSError) as error:
            problem = error if isinstance(error, ConfigError) else cannot_write(path, str(error))
            raise ConfigError(
                f"{problem}\nThe existing checkpoints are unchanged. When the disk is writable "
                f"again, continue with: hrseg fit --resume {run_of(path) or ''}".rstrip()
            ) from error
        self._written.add(path)

    def _save(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for partial in path.parent.glob(f"{PARTIAL}*{path.suffix}"):  # of a killed process
            partial.unlink(missing_ok=True)
        # A damaged file of another process must not replace the intact previous one.
        keep = path in self._written or (path.is_file() and state_of(path) != "damaged")
        with replacing(path, durable=True, previous=previous_of(path) if keep else None) as partial:
            if problem := _write(checkpoint, partial):
                raise cannot_write(path, problem)
            with partial.open("rb+") as file:
                sync(file.fileno())
                if hasattr(os, "posix_fadvise"):  # the next reader asks the disk, not the memory
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
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


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that reads the best score from the best file when a run is resumed.

    Lightning forgets the best score if the folder's path has changed, and otherwise takes that of
    the resumed state. The best file may be newer: the next validation would overwrite it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        kept = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        paths = ("best_model_path", "kth_best_model_path")
        present = {
            **{name: str(kept) if state_dict[name] else "" for name in paths},
            "best_k_models": {str(kept): score for score in state_dict["best_k_models"].values()},
            "last_model_path": "",
            "dirpath": self.dirpath,
        }
        super().load_state_dict({**state_dict, **present})
        self.current_score = state_dict["current_score"]
        if self.monitor is not None:
            self._take_best(kept)

    def _take_best(self, kept: Path) -> None:
        """Take the score in the best file; without an intact file the next score is the best."""
        try:
            callbacks = read_checkpoint(whole_checkpoint(kept)).get("callbacks", {})
        except ConfigError:
            if self.best_k_models:
                warnings.warn(f"no intact {kept}: the next validation writes one", stacklevel=2)
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""
            return
        score = callbacks.get(self.state_key, {}).get("best_model_score")
        if score is not None:
            self.best_model_score = self.kth_value = self.current_score = score
            self.best_model_path = self.kth_best_model_path = str(kept)
            self.best_k_models = {str(kept): score}
