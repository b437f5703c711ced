"""Training of a config in a run folder: the work of `hrseg fit`."""

import shutil
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging, LambdaCallback

from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import (
    locked_run,
    newest_state,
    point_latest,
    requeued_run,
    write_config,
)
from hrseg.config.schema import Config
from hrseg.errors import HrsegError
from hrseg.evaluation.image_scores import ImageScores
from hrseg.evaluation.report import report_run
from hrseg.training.callbacks import PredictionImages
from hrseg.training.checkpointing import RunCheckpoint
from hrseg.training.distributed import SameStatistics, new_folder, place
from hrseg.training.exact_resume import ExactState, restoring
from hrseg.training.factory import build_data, build_task
from hrseg.training.loggers import quieten
from hrseg.training.loss_guard import LossGuard
from hrseg.training.preemption import Interruption
from hrseg.training.preflight import (
    announce_fit,
    check_interval,
    check_norms,
    checked_last,
    stored_channels,
)
from hrseg.training.progress_bar import Progress
from hrseg.training.skipped_images import SkippedFiles
from hrseg.training.trainer import accumulated_batches, build_trainer, settle_precision, user_errors
from hrseg.utils.signals import Stopped


def fit(config: Config, resume: Path | None = None) -> Path:
    """Train a config; return the run folder.

    Args:
        config: the experiment.
        resume: run folder to resume from its last checkpoint; None: a new run folder.

    Raises:
        HrsegError: invalid settings or data. Most are found before the first step, and then a new
            run folder is removed.
    """
    quieten()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    placement = place(config.trainer)
    home = Path(config.runs) / config.name
    resume = resume or requeued_run(home)
    reason = settle_precision(config, placement, resume)
    data = build_data(config)
    if resume:  # or the channels would be measured again, on images that may have changed
        state = newest_state(resume)
        data.use_channels(stored_channels(read_checkpoint(state), state))
    data.check("fit", placement.processes, accumulated_batches(config))
    task = build_task(config, data, weights=resume is None)
    run = resume or new_folder(placement, home)
    started = False

    def record(trainer: pl.Trainer, task: pl.LightningModule) -> None:
        nonlocal started
        if trainer.is_global_zero:
            write_config(config, run, durable=True)
            point_latest(run)
        started = True

    saves = not config.trainer.get("fast_dev_run")
    interruption = Interruption(run, saves, config.save_every_minutes)
    try:
        with locked_run(run):
            recorder = LambdaCallback(on_train_start=record)  # writes nothing for a refused run
            callbacks = [recorder, *_callbacks(config, run, saves, interruption)]
            trainer = build_trainer(config, placement, run, callbacks)
            last = checked_last(config, task, trainer, run) if resume else None
            check_norms(config, trainer)
            check_interval(trainer, len(data.train_dataset or ()) // config.data.batch_size)
            announce_fit(config, data, task, trainer, reason, last)
            with user_errors(config, trainer), restoring(last, trainer):
                trainer.fit(task, data, ckpt_path=last, weights_only=True)
            interruption.finish()
            if trainer.is_global_zero:
                report_run(run, config.inference.details)
    except (HrsegError, Stopped):
        if not resume and not started:
            shutil.rmtree(run, ignore_errors=True)
        raise
    return run


def _callbacks(
    config: Config, run: Path, saves: bool, interruption: Interruption
) -> list[Callback]:
    """Return the callbacks of a training, in the order of their calls."""
    checkpoint = partial(RunCheckpoint, dirpath=run / "checkpoints", enable_version_counter=False)
    patience, ema = config.early_stopping_patience, config.ema_decay
    scored = config.trainer.get("limit_val_batches") != 0
    ordered: list[Callback | None] = [
        ImageScores(run, run / "checkpoints" / "best.ckpt"),
        PredictionImages(config.prediction_images, run),
        Progress() if config.trainer.get("enable_progress_bar", True) else None,
        EMAWeightAveraging(decay=ema) if ema is not None else None,
        SameStatistics(),  # after EMA, whose weights it evaluates
        ExactState(run),
        EarlyStopping("val/miou", mode="max", patience=patience) if patience is not None else None,
        interruption,
        LossGuard(config.on_bad_loss, run),
        SkippedFiles(run),
        checkpoint(filename="best", monitor="val/miou", mode="max") if saves and scored else None,
        checkpoint(filename="last", save_on_train_epoch_end=True) if saves else None,
    ]
    return [callback for callback in ordered if callback is not None]
