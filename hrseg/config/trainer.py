"""Schema of the config's `trainer` section: the arguments of pytorch_lightning.Trainer."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import create_model

from hrseg.utils.validation import Checked, wrong_value

# What pytorch_lightning.Trainer takes, so that a typo is found without the seconds of importing it.
TRAINER_NAMES = (
    "accelerator strategy devices num_nodes precision fast_dev_run max_epochs min_epochs max_steps "
    "min_steps max_time limit_train_batches limit_val_batches limit_test_batches "
    "limit_predict_batches overfit_batches val_check_interval check_val_every_n_epoch "
    "num_sanity_val_steps log_every_n_steps enable_checkpointing enable_progress_bar "
    "enable_model_summary accumulate_grad_batches gradient_clip_val gradient_clip_algorithm "
    "deterministic benchmark inference_mode profiler detect_anomaly barebones plugins "
    "sync_batchnorm reload_dataloaders_every_n_epochs enable_autolog_hparams model_registry"
).split()

_WHOLE = (
    "max_epochs min_epochs max_steps min_steps check_val_every_n_epoch num_sanity_val_steps "
    "log_every_n_steps accumulate_grad_batches num_nodes reload_dataloaders_every_n_epochs"
).split()

# hrseg gives these to the Trainer itself.
OWN_TRAINER_NAMES = ("logger", "callbacks", "default_root_dir", "use_distributed_sampler")
_UNUSABLE = {
    "plugins": "it takes Python objects",
    "barebones": "a run has scores and checkpoints",
    "enable_checkpointing": "a run has checkpoints",
    "model_registry": "hrseg uploads no models",
}

_PRECISIONS = (
    "32-true 16-mixed bf16-mixed 16-true bf16-true 64-true 32 16 bf16 64".split()  # the last: old
)
_TIME = r"\d+:\d{1,2}:\d{1,2}:\d{1,2}"
_UNITS = {"weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"}


def _is_part(value: Any, least: int) -> bool:
    """Return whether a value is a number of batches from `least` up, or a share up to 1.0."""
    if isinstance(value, float):
        return least < value <= 1 or value == 0 == least
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_duration(value: Any) -> bool:
    if isinstance(value, dict):
        return set(value) <= _UNITS and all(isinstance(v, int | float) for v in value.values())
    return isinstance(value, str) and re.fullmatch(_TIME, value) is not None


_ONE_OR_MORE = (lambda value: value >= 1, "a whole number, at least 1.")
_END = (lambda value: value >= 1 or value == -1, "at least 1: 0 trains nothing; -1 has no limit.")
_SHARE = (lambda value: _is_part(value, 0), "a number of batches, e.g. 10, or a share, e.g. 0.5.")
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_epochs": _END,
    "max_steps": _END,
    "check_val_every_n_epoch": _ONE_OR_MORE,
    "accumulate_grad_batches": _ONE_OR_MORE,
    "log_every_n_steps": _ONE_OR_MORE,
    "num_nodes": _ONE_OR_MORE,
    "limit_train_batches": (
        lambda value: _is_part(value, 0) and value > 0,
        "a number of batches from 1 up, e.g. 10, or a share up to 1.0, e.g. 0.5.",
    ),
    "limit_val_batches": _SHARE,
    "limit_test_batches": _SHARE,
    "overfit_batches": _SHARE,
    "val_check_interval": (
        lambda value: _is_duration(value) or (_is_part(value, 0) and value > 0),
        "a number of batches from 1 up, e.g. 500, or a share of an epoch up to 1.0, e.g. 0.5.",
    ),
    "max_time": (_is_duration, 'days:hours:minutes:seconds, e.g. "00:12:00:00" in quotes.'),
    "deterministic": (
        lambda value: isinstance(value, bool) or value == "warn",
        "true, false or warn.",
    ),
    "precision": (lambda value: str(value) in _PRECISIONS, f"one of: {', '.join(_PRECISIONS)}."),
    "accelerator": (
        lambda value: value in ("auto", "cpu", "gpu", "cuda", "mps"),
        "one of: auto, cpu, gpu, cuda, mps.",
    ),
}

_fields: Any = {n: (int | None if n in _WHOLE else Any, None) for n in TRAINER_NAMES}
TrainerConfig: type[Checked] = create_model("TrainerConfig", __base__=Checked, **_fields)


def checked_trainer(value: Any) -> dict[str, Any]:
    """Return the `trainer` section as a plain dict; its keys and values are checked.

    Without Lightning, whose import takes seconds and which refuses few of them well.
    """
    reasons = {**dict.fromkeys(OWN_TRAINER_NAMES, "hrseg sets this one itself"), **_UNUSABLE}
    for name, reason in reasons.items():
        given = value.get(name) if isinstance(value, dict) else None
        default = name in _UNUSABLE and given == (name == "enable_checkpointing")
        if given is not None and not default:
            raise wrong_value(given, f"no value: {reason}. Fix: remove the key.", name)
    checked = TrainerConfig.model_validate(value).model_dump(exclude_unset=True)
    for name, (is_right, wanted) in _CHECKS.items():
        if checked.get(name) is not None and not is_right(checked[name]):
            raise wrong_value(checked[name], wanted, name)
    return checked
