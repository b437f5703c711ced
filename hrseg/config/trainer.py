"""Schema of the config's `trainer` section: the arguments of pytorch_lightning.Trainer."""

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

_fields: Any = {n: (int | None if n in _WHOLE else Any, None) for n in TRAINER_NAMES}
TrainerConfig: type[Checked] = create_model("TrainerConfig", __base__=Checked, **_fields)


def checked_trainer(value: Any) -> dict[str, Any]:
    """Return the `trainer` section as a plain dict; its keys and numbers are checked."""
    for name in OWN_TRAINER_NAMES:
        if isinstance(value, dict) and name in value:
            fix = "no value: hrseg sets this one itself. Fix: remove the key."
            raise wrong_value(value[name], fix, name)
    return TrainerConfig.model_validate(value).model_dump(exclude_unset=True)
