"""The state of a training that a checkpoint holds, of any origin: told when it is not one."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from hrseg.errors import ConfigError, HrsegError
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.text import one_line


def check_state(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a training state whose parts are not of the kinds that Lightning writes.

    Raises:
        ConfigError: this.
    """
    wrong = [name for name, fits in _PARTS.items() if not fits(content.get(name))]
    if wrong:
        raise _no_state(path, f"its {wrong[0]} is not what Lightning writes")


@contextmanager
def restoring(path: Path | None) -> Iterator[None]:
    """Turn what Lightning, or a callback, says to a state of another kind into one clear error."""
    try:
        yield
    except HrsegError:
        raise
    except Exception as error:
        if path is None or is_out_of_memory(error) or not _was_restoring(error):
            raise
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        raise _no_state(path, reason) from error


def _no_state(path: Path, why: str) -> ConfigError:
    """Return the error for a checkpoint that no training can go on from."""
    return ConfigError(
        f"{path} holds no state of a training to go on from: {why}.\n"
        f"Start a new run from its weights: model.weights={path}"
    )


def _was_restoring(error: BaseException) -> bool:
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any("checkpoint_connector" in name or ".migration" in name for name in modules)


def _are_dicts(value: Any, *keys: str) -> bool:
    """Return whether something is a list of dicts that have such keys, with whole numbers."""
    return isinstance(value, list) and all(
        isinstance(one, dict) and all(type(one.get(key)) is int for key in keys) for one in value
    )


_PARTS: dict[str, Callable[[Any], bool]] = {
    "pytorch-lightning_version": lambda v: re.fullmatch(r"\d+\.\d+[\w.+]{,40}", str(v)) is not None,
    "epoch": lambda value: type(value) is int,
    "global_step": lambda value: type(value) is int,
    "loops": lambda value: isinstance(value, dict),
    "callbacks": lambda value: isinstance(value, dict),
    "optimizer_states": _are_dicts,
    "lr_schedulers": lambda value: _are_dicts(value, "_step_count", "last_epoch"),
}
