"""Loggers by name, and filters for log messages and warnings of Lightning."""

import csv
import logging
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pytorch_lightning import loggers as pl_loggers
from pytorch_lightning.loggers import CSVLogger, Logger
from rich import get_console

from hrseg.checkpoints.runs import is_first_process
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.utils.registry import find


def build_loggers(config: Config, run: Path) -> list[Logger]:
    """Return the CSV logger and the config's loggers.

    Raises:
        ConfigError: an unknown logger, or one whose package is missing.
    """
    loggers: list[Logger] = [metrics_csv(run)]
    for name in config.loggers:
        make = find(LOGGERS, name, "logger")
        if find_spec(name) is not None:
            loggers.append(make(config.name, run))
        elif name == "tensorboard":
            get_console().print(
                "tensorboard is not installed; metrics are written only to metrics.csv"
            )
        else:
            raise ConfigError(
                f"loggers: the package {name} is not installed.\n"
                f"Fix: `pip install {name}`, or remove {name} from loggers."
            )
    return loggers


def metrics_csv(run: Path) -> CSVLogger:
    """Return a logger that writes `run/metrics.csv`, and appends to it in a resumed run."""
    path, backup = run / "metrics.csv", run / ".metrics.csv"
    logger = CSVLogger(run, name="", version="", flush_logs_every_n_steps=50)
    if not is_first_process():
        return logger
    if path.is_file():
        os.replace(path, backup)  # Lightning deletes an existing file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning warns that the run folder exists
        writer = logger.experiment
    if backup.is_file():
        os.replace(backup, path)
        try:
            rows = [*csv.reader(path.read_text("utf-8").splitlines()), []]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{path} is damaged: {error}.\n"
                "Fix: remove it; training continues without the earlier metrics."
            ) from error
        writer.metrics_keys = rows[0]
    return logger


def quieten() -> None:
    """Hide output of processes other than the first, and warnings without use for the user."""
    if not is_first_process():
        get_console().quiet = True
        warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*exists and is not empty.*",
        ".*number of training batches.*smaller than the logging interval.*",
        ".*LeafSpec.*",
        ".*your dataloader is not resumable.*",  # the DataModule is resumable
        ".*in eval mode at the start of training.*",
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*DataLoader will create .* worker processes.*",
        ".*recommended to use .*sync_dist=True.*",  # scores use sums over all processes
    ):
        warnings.filterwarnings("ignore", message)
    # Without the line of code that caused the warning.
    warnings.formatwarning = lambda message, *_: f"note: {message}\n"


LOGGERS: dict[str, Callable[[str, Path], Logger]] = {
    "tensorboard": lambda name, run: pl_loggers.TensorBoardLogger(run, name="", version=""),
    "wandb": lambda name, run: pl_loggers.WandbLogger(project="hrseg", name=name, save_dir=run),
    "mlflow": lambda name, run: pl_loggers.MLFlowLogger(
        name, tracking_uri=f"file:{run / 'mlruns'}"
    ),
}
