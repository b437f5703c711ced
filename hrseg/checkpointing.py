"""Checkpoints that survive: written whole or not at all; which ones a run keeps."""

import os
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from hrseg.atomic import PARTIAL, cannot_write, replacing
from hrseg.seal import SealingFile, previous_of, state_of, whole_checkpoint


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the old one, reads it back, and only then lets it take the place.

    The old one stays as `<name>.previous.ckpt`. At every moment, and after a loss of power, one of
    the two is whole; `whole_checkpoint` says which.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            ConfigError: a full disk, or one that does not give back what was written; the
                checkpoints that were there are as they were.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f"{PARTIAL}*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        with replacing(path, previous_of(path)) as partial:
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
    """A ModelCheckpoint that knows its best score again in another place.

    Lightning forgets it where the folder's path has changed; the next validation, however bad,
    would overwrite the best checkpoint.
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
