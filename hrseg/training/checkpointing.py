"""Checkpoint callbacks and atomic, durable saving."""

import os
import warnings
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from hrseg.checkpoints.integrity import SealingFile, previous_of, state_of, whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import run_of
from hrseg.errors import ConfigError
from hrseg.utils.files import PARTIAL, cannot_write, replacing


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one, reads it back, and only then lets it take the place.

    The old one stays as `<name>.previous.ckpt`. At every moment, and after a loss of power, one of
    the two is whole; `whole_checkpoint` says which.
    """

    def __init__(self) -> None:
        """Start with nothing written."""
        self._written: set[Path] = set()

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ConfigError: a full disk, or one that does not give back what was written; the
                checkpoints that were there are as they were.
        """
        path = Path(path)
        try:
            self._save(checkpoint, path)
        except (ConfigError, OSError) as error:
            run = run_of(path)
            said = error if isinstance(error, ConfigError) else cannot_write(path, str(error))
            raise ConfigError(
                f"{said}\nThe checkpoints that were there are as they were. When it can be written "
                f"again, go on: hrseg fit --resume {run or ''}".rstrip()
            ) from error
        self._written.add(path)

    def _save(self, checkpoint: dict[str, Any], path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{PARTIAL}*{path.suffix}"):  # by a process that was killed
            left.unlink(missing_ok=True)
        # A damaged file, which another process wrote, is not kept in the place of a sound one.
        keep = path in self._written or (path.is_file() and state_of(path) != "damaged")
        with replacing(path, durable=True, previous=previous_of(path) if keep else None) as partial:
            with partial.open("wb+") as file:
                sealing = SealingFile(file)
                try:
                    torch.save(checkpoint, cast(IO[bytes], sealing))
                except RuntimeError as error:
                    raise sealing.fault or error from error
                sealing.seal()
                _forget_pages(file.fileno())
            if state_of(partial) != "whole":
                raise cannot_write(path, "what is read back is not what was written.")

    def load_checkpoint(self, path: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Read a checkpoint, or the one before it where it is damaged."""
        return super().load_checkpoint(whole_checkpoint(Path(path)), *args, **kwargs)


def _forget_pages(handle: int) -> None:
    """Let the next reader of a file ask the disk, not the memory."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


class RunCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that knows, when a run is resumed, what its best file holds.

    Lightning forgets the best score where the folder's path has changed, and otherwise takes that
    of the state that is gone on from, which may be older than the best file: the next validation,
    however bad, would overwrite it.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state with its files where they lie now."""

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
        """Take the score that the best file says; without a sound one the next is the best."""
        kept = Path(str(self.dirpath)) / f"{self.filename}.ckpt"
        try:
            callbacks = read_checkpoint(whole_checkpoint(kept)).get("callbacks")
        except ConfigError:
            if self.best_k_models:
                warnings.warn(f"no sound {kept}: the next validation writes one", stacklevel=2)
            self.best_k_models, self.best_model_score = {}, None
            self.best_model_path = self.kth_best_model_path = ""
            return
        said = callbacks.get(self.state_key) if isinstance(callbacks, dict) else None
        score = said.get("best_model_score") if isinstance(said, dict) else None
        if isinstance(score, torch.Tensor) and score.numel() == 1:
            self.best_model_score = self.kth_value = self.current_score = score
            self.best_model_path = self.kth_best_model_path = str(kept)
            self.best_k_models = {str(kept): score}
