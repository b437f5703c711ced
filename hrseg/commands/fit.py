"""Train, score, test: what a command does with a config, and the run folder it keeps."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from traceback import walk_tb
from typing import Any, cast

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, EarlyStopping, EMAWeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from rich import get_console

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import is_on_hub, read_checkpoint
from hrseg.checkpoints.runs import point_latest, requeued_run
from hrseg.config.loader import load_config, to_dict, to_yaml
from hrseg.config.schema import Config
from hrseg.data import DATASETS
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError, HrsegError
from hrseg.evaluation.analysis import write_details
from hrseg.evaluation.image_scores import ImageScores, open_evaluation
from hrseg.evaluation.report import write_report
from hrseg.evaluation.submission import Submission
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.training.callbacks import PredictionImages
from hrseg.training.checkpointing import RunCheckpoint
from hrseg.training.distributed import SameStatistics, another_ended, end_others, new_folder, scout
from hrseg.training.exact_resume import ExactState, restoring
from hrseg.training.factory import build_data, build_task, build_trainer
from hrseg.training.loggers import quieten
from hrseg.training.preemption import Interruption
from hrseg.training.preflight import (
    announce_fit,
    check_interval,
    check_norms,
    check_settings,
    checked_last,
    device,
)
from hrseg.training.progress_bar import Progress
from hrseg.training.task import SegmentationTask
from hrseg.training.trainer import choose_precision
from hrseg.utils.console import say
from hrseg.utils.files import write_bytes
from hrseg.utils.memory import OutOfMemory, is_out_of_memory, of_evaluation, of_training
from hrseg.utils.signals import Handler, Stopped


def fit(config: Config, resume: Path | None = None) -> Path:
    """Train, and return the run folder: a new one, or `resume`, whose `last.ckpt` is gone on from.

    Raises:
        HrsegError: before the first step, for everything that can be known by then.
    """
    quieten()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    home = Path(config.runs) / config.name
    resume = resume or requeued_run(home)
    place = scout(to_dict(config)["trainer"])
    chosen = _settle_precision(config, place, resume)
    data = build_data(config)
    data.trainer = place  # whose processes must be able to share a batch
    data.check()
    task = build_task(config, data, weights=resume is None)
    run = resume or new_folder(place, home)
    record, interruption = _Record(config, run), _interruption(config, run)
    try:
        callbacks = [record, *_training_callbacks(config, run), interruption]
        trainer = build_trainer(config, run, callbacks)
        last = checked_last(config, task, trainer, run) if resume else None
        check_norms(config, trainer)
        check_interval(trainer, len(data.train_dataset or ()) // config.data.batch_size)
        announce_fit(config, data, task, trainer, chosen, last)
        with _user_errors(config, trainer), restoring(last):
            trainer.fit(task, data, ckpt_path=last, weights_only=True)
        interruption.finish()
        if trainer.is_global_zero:
            _forget_requeues(run)
            _report(run, config)
    except (HrsegError, Stopped):
        if not resume and not record.written:
            shutil.rmtree(run, ignore_errors=True)
        raise
    return run


def validate(config: Config, checkpoint: Path, folder: Path) -> dict[str, Any]:
    """Score a checkpoint by the config's protocol; write scores and pictures into `folder`.

    Returns:
        The content of scores.json.
    """
    data, task = _to_score(config, checkpoint, "validate")
    watch = [
        ImageScores(folder, checkpoint),
        PredictionImages(config.prediction_images, folder),
    ]
    trainer, chosen = _scorer(config, task, folder, watch)
    say(
        f"validate {config.name}: {checkpoint} on {len(data.val_dataset or ())} images; "
        f"{device(trainer, chosen)}"
    )
    with _user_errors(config, trainer):
        trainer.validate(task, data, verbose=False)
    if trainer.is_global_zero:
        write_bytes(folder / "config.yaml", _portable_yaml(config).encode())
        _report(folder, config)
    return task.scores


def _report(folder: Path, config: Config) -> None:
    """Write the details that are asked for, and report.html; a fault there costs no run."""
    if not (folder / "images.json").is_file():
        return  # nothing was validated
    try:
        if config.inference.details:
            write_details(open_evaluation(folder))
        print(f"report: {write_report(folder)}")
    except HrsegError as error:
        say(f"note: no report: {error}")


def test(config: Config, checkpoint: Path, folder: Path) -> Path:
    """Predict the test split by the config's protocol; write masks for the benchmark's server.

    Returns:
        The zip file for the server, checked.

    Raises:
        ConfigError: the data set has no server.
        VerificationError: the masks are not what the server expects.
    """
    if DATASETS[config.data.name].submission_ids is None:
        raise ConfigError(
            f"{config.data.name} has no server that takes masks; expected one of "
            f"{', '.join(name for name, data in DATASETS.items() if data.submission_ids)}.\n"
            "`hrseg validate` scores a split that has masks."
        )
    data, task = _to_score(config, checkpoint, "test")
    assert data.test_dataset is not None and data.submission_ids is not None
    images = [image for image, _ in data.test_dataset.files]
    submission = Submission(folder, images, data.test_dataset.names, data.submission_ids)
    trainer, chosen = _scorer(config, task, folder, [submission])
    say(
        f"test {config.name}: {checkpoint} on {len(images)} images; {device(trainer, chosen)}",
        str(task.protocol),
    )
    with _user_errors(config, trainer):
        trainer.test(task, data, verbose=False)
    return folder / "submission.zip"


def _scorer(
    config: Config, task: SegmentationTask, folder: Path, callbacks: list[Callback]
) -> tuple[pl.Trainer, str]:
    """Return what evaluates, and why in the precision that it has, if that was chosen."""
    place = scout(to_dict(config)["trainer"])
    # An exported file computes in a precision of its own.
    chosen = "" if isinstance(task.model, Engine) else _settle_precision(config, place)
    return build_trainer(config, folder, callbacks, train=False), chosen


def _settle_precision(config: Config, place: pl.Trainer, resume: Path | None = None) -> str:
    """Write the precision into a config that says none; return why it is that one."""
    if config.trainer.get("precision") is not None:
        return ""
    started = load_config(resume / "config.yaml").trainer.get("precision") if resume else None
    kind = place.strategy.root_device.type
    choice = choose_precision(kind, place.world_size)
    config.trainer["precision"] = started or choice.precision
    return "as the run was started" if started else choice.reason


def _to_score(
    config: Config, checkpoint: Path, stage: str
) -> tuple[SegmentationDataModule, SegmentationTask]:
    """Return checked data and the task with the weights of a checkpoint."""
    quieten()
    data = build_data(config)
    data.check(stage)
    if is_exported(checkpoint):
        return data, _exported_task(config, data, checkpoint)
    task = build_task(config, data, weights=False)
    content = read_checkpoint(checkpoint)
    check_settings(task, content.get("hrseg"), checkpoint)
    report = load_weights(task.model, content, purpose="evaluate", origin=checkpoint)
    get_console().print(str(report), highlight=False, markup=False, soft_wrap=True)
    return data, task


def _exported_task(config: Config, data: SegmentationDataModule, path: Path) -> SegmentationTask:
    """Return the task with an exported file in place of the network."""
    lower = str(config.trainer.get("precision", "32")).startswith("bf16")
    precision = "bf16" if lower and path.suffix == ".xml" else "32"
    engine = open_engine(path, precision=precision)
    task = build_task(config, data, weights=False, engine=engine)
    engine.check(task.protocol)
    check_settings(task, engine.facts, path)
    say(f"{path}: {engine.extra_repr()}, precision {precision}")
    return task


class _Record(Callback):
    """Write the config and move `latest` when training really begins: a refusal leaves no trace."""

    def __init__(self, config: Config, run: Path) -> None:
        self.config, self.run, self.written = config, run, False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero:
            text = _portable_yaml(self.config)
            write_bytes(self.run / "config.yaml", text.encode(), durable=True)
            point_latest(self.run)
        self.written = True


def _training_callbacks(config: Config, run: Path) -> list[Callback]:
    callbacks: list[Callback] = [
        ImageScores(run, run / "checkpoints" / "best.ckpt"),
        PredictionImages(config.prediction_images, run),
    ]
    if config.trainer.get("enable_progress_bar", True):
        callbacks.append(Progress())
    if config.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=config.ema_decay))
    # SameStatistics comes after EMA has put its weights in place.
    callbacks += [SameStatistics(), ExactState(run)]
    if config.early_stopping_patience is not None:
        patience = config.early_stopping_patience
        callbacks.append(EarlyStopping("val/miou", mode="max", patience=patience))
    if _keeps_checkpoints(config):
        keep = partial(RunCheckpoint, dirpath=run / "checkpoints", enable_version_counter=False)
        callbacks.append(keep(filename="best", monitor="val/miou", mode="max"))
        callbacks.append(keep(filename="last", save_on_train_epoch_end=True))
    return callbacks


def _interruption(config: Config, run: Path) -> Interruption:
    return Interruption(run, _keeps_checkpoints(config), config.save_every_minutes)


def _keeps_checkpoints(config: Config) -> bool:
    trainer = config.trainer
    return not trainer.get("fast_dev_run") and bool(trainer.get("enable_checkpointing", True))


def _portable_yaml(config: Config) -> str:
    """Return the config with absolute paths, so that the run works from any folder."""
    copy = cast(DictConfig, OmegaConf.create(to_yaml(config)))
    paths = (("data", "root"), ("data", "cache"), ("data", "manifest"), ("model", "weights"))
    for section, key in paths:
        value = OmegaConf.to_container(copy[section])[key]  # type: ignore[index, call-overload]
        if isinstance(value, str) and "${" not in value and not is_on_hub(value):
            copy[section][key] = str(Path(value).expanduser().absolute())
    return OmegaConf.to_yaml(copy)


def _forget_requeues(run: Path) -> None:
    """Remove what was saved for going on after SLURM took the machine back."""
    for state in run.glob("hpc_ckpt_*.ckpt"):
        state.unlink()


@contextmanager
def _user_errors(config: Config, trainer: pl.Trainer) -> Iterator[None]:
    """Pass on what is the user's: signals, which Lightning answers in its way; bad arguments."""
    # Lightning's answer to SIGTERM waits for all processes from within the signal's handler.
    trainer._signal_connector._sigterm_notifier_fn = Handler()  # type: ignore[method-assign, assignment]
    try:
        yield
    except Stopped:
        end_others(trainer)
        raise
    except (MisconfigurationException, ValueError) as error:
        *_, (frame, _) = walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith(("pytorch_lightning.", "lightning_fabric.")):
            raise
        raise ConfigError(f"trainer: {str(error).strip()}") from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise _memory_spent(config, trainer) from error
        if ended := another_ended(trainer, error):
            raise ended from error
        raise
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _memory_spent(config: Config, trainer: pl.Trainer) -> OutOfMemory:
    """Return the error that says what took more memory than there is."""
    if trainer.state.fn != TrainerFn.FITTING:
        return of_evaluation(config.inference.protocol)
    shares = trainer.world_size * trainer.accumulate_grad_batches
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    return of_training(config.data.batch_size // shares, config.data.crop_size, last)
