"""Schema of the config's `trainer` section: the arguments of pytorch_lightning.Trainer."""

import re
from collections.abc import Callable
from typing import Any

from pydantic import create_model

from hrseg.utils.validation import Checked, option, wrong_value

# Descriptions of the arguments of pytorch_lightning.Trainer by name. The import of Lightning takes
# seconds; this copy finds an unknown name without it.
TRAINER_ARGUMENTS = {
    "accelerator": "device type: auto, cpu, gpu, cuda or mps",
    "strategy": "distributed strategy, e.g. ddp",
    "devices": "devices per machine: a number, a list of indices, or auto",
    "num_nodes": "number of machines",
    "precision": "precision of the computation, e.g. 32, 16-mixed or bf16-mixed",
    "fast_dev_run": "run only one batch, or this number of batches, and save nothing",
    "max_epochs": "number of epochs; -1: no limit",
    "min_epochs": "least number of epochs",
    "max_steps": "number of optimizer steps; -1: no limit",
    "min_steps": "least number of optimizer steps",
    "max_time": 'time limit of the training, days:hours:minutes:seconds, e.g. "00:12:00:00"',
    "limit_train_batches": "training batches per epoch, a number or a share",
    "limit_val_batches": "batches per validation, a number or a share; 0: no validation",
    "limit_test_batches": "test batches, a number or a share",
    "limit_predict_batches": "prediction batches of the Trainer, a number or a share; unused",
    "overfit_batches": "training batches to overfit on, a number or a share; 0: all",
    "val_check_interval": "training between validations: batches, a share of an epoch, or a time",
    "check_val_every_n_epoch": "epochs between validations",
    "num_sanity_val_steps": "validation batches before the training; 0: none",
    "log_every_n_steps": "steps between logged training losses",
    "enable_checkpointing": "always true: a run has checkpoints",
    "enable_progress_bar": "show a progress bar",
    "enable_model_summary": "print a table of the layers",
    "accumulate_grad_batches": "batches per optimizer step (gradient accumulation)",
    "gradient_clip_val": "threshold of gradient clipping; null: no clipping",
    "gradient_clip_algorithm": "algorithm of gradient clipping: norm or value",
    "deterministic": "use deterministic algorithms; warn: warn about others",
    "benchmark": "let cuDNN choose the fastest algorithms",
    "inference_mode": "evaluate in torch.inference_mode, not torch.no_grad",
    "profiler": "profiler of the training, e.g. simple or advanced",
    "detect_anomaly": "detect NaN in the backward pass, which is slow",
    "barebones": "always false: a run has scores and checkpoints",
    "plugins": "always null: it needs Python objects",
    "sync_batchnorm": "batch norm statistics over all devices",
    "reload_dataloaders_every_n_epochs": "epochs between new data loaders; 0: never",
    "enable_autolog_hparams": "log hyperparameters of the model",
    "model_registry": "always null: hrseg uploads no models",
}

_WHOLE = (
    "max_epochs min_epochs max_steps min_steps check_val_every_n_epoch num_sanity_val_steps "
    "log_every_n_steps accumulate_grad_batches num_nodes reload_dataloaders_every_n_epochs"
).split()

# Arguments that hrseg passes to the Trainer itself.
OWN_TRAINER_NAMES = ("logger", "callbacks", "default_root_dir", "use_distributed_sampler")
_UNUSABLE = {
    "plugins": "it needs Python objects",
    "barebones": "a run has scores and checkpoints",
    "enable_checkpointing": "a run has checkpoints",
    "model_registry": "hrseg uploads no models",
}

_PRECISIONS = (
    "32-true 16-mixed bf16-mixed 16-true bf16-true 64-true 32 16 bf16 64".split()  # last four: old
)
_TIME = r"\d+:\d{1,2}:\d{1,2}:\d{1,2}"
_UNITS = {"weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds"}


def _is_part(value: Any, smallest: int) -> bool:
    """Return whether a value is a number of batches from `smallest` up, or a share up to 1.0."""
    if isinstance(value, float):
        return smallest < value <= 1 or value == 0 == smallest
    return isinstance(value, int) and not isinstance(value, bool) and value >= smallest


def _is_duration(value: Any) -> bool:
    if isinstance(value, dict):
        return set(value) <= _UNITS and all(isinstance(v, int | float) for v in value.values())
    return isinstance(value, str) and re.fullmatch(_TIME, value) is not None


_ONE_OR_MORE = (lambda value: value >= 1, "a whole number, at least 1.")
_END = (lambda value: value >= 1 or value == -1, "at least 1, or -1 for no limit.")
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

_fields: Any = {
    name: (int | None if name in _WHOLE else Any, option(description, None))
    for name, description in TRAINER_ARGUMENTS.items()
}
TrainerConfig: type[Checked] = create_model("TrainerConfig", __base__=Checked, **_fields)


def checked_trainer(value: Any) -> dict[str, Any]:
    """Return the `trainer` section as a plain dict, with validated keys and values.

    Lightning is not imported: its import takes seconds, and few of its messages name the fix.
    """
    reasons = {**dict.fromkeys(OWN_TRAINER_NAMES, "hrseg sets it itself"), **_UNUSABLE}
    for name, reason in reasons.items():
        content = value.get(name) if isinstance(value, dict) else None
        default = name in _UNUSABLE and content == (name == "enable_checkpointing")
        if content is not None and not default:
            raise wrong_value(content, f"no value, because {reason}. Fix: remove the key.", name)
    checked = TrainerConfig.model_validate(value).model_dump(exclude_unset=True)
    for name, (is_valid, expected) in _CHECKS.items():
        if checked.get(name) is not None and not is_valid(checked[name]):
            raise wrong_value(checked[name], expected, name)
    return checked
