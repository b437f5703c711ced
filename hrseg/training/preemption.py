"""Preemption: save and stop at a signal, requeue under SLURM, and save at intervals."""

import os
import signal
import subprocess
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

from hrseg.checkpoints.runs import is_first_process
from hrseg.training.lightning_internals import skip_sigterm_broadcast
from hrseg.utils.signals import AGAIN, Stopped, stop_signals

_STOP, _REQUEUE, _DUE = range(3)  # requests: a signal number, and two flags


class Interruption(Callback):
    """Save the state and stop training at a signal, and save at intervals.

    SIGTERM, SIGINT, SIGHUP and a closed output stop training after the current batch. All
    processes stop after the same batch, even if only one receives the signal. During a validation
    they stop at once, because the state was saved before it. SLURM's SIGUSR1 saves the state
    between two batches and requeues the job.

    Args:
        run: run folder, which receives `checkpoints/last.ckpt`.
        save: save the state at signals, before validations, and at the ends of epochs.
        every_minutes: save also at this interval.
    """

    def __init__(self, run: Path, save: bool = True, every_minutes: float | None = None) -> None:
        self.run = run
        self.path = run / "checkpoints" / "last.ckpt" if save else None
        self.every = 60 * every_minutes if every_minutes and save else float("inf")
        self.requeue = save and SLURMEnvironment.detect()
        self.requested = [0, 0, 0]  # requests of this process
        self.agreed = [0, 0, 0]  # requests of all processes
        self.validating = False  # True only if the state before the validation was saved
        self._first = self._saved = 0.0
        self._group: Any = None
        self._pending: tuple[Any, torch.Tensor] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._trainer = trainer
        skip_sigterm_broadcast(trainer)

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.requeue:
            _handle(signal.SIGUSR1, self._on_requeue_signal)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning restores the previous handlers at the end of `fit`.
        self.on_sanity_check_start(trainer, pl_module)
        self._saved = time.monotonic()
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        for signum in stop_signals():
            _handle(signum, self._on_stop_signal)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_global_zero and time.monotonic() - self._saved > self.every:
            self.requested[_DUE] = 1
        self._exchange()
        if any(self.agreed) and batch_idx % trainer.accumulate_grad_batches == 0:
            self._save_and_answer()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._receive()
        accumulated = (trainer.fit_loop.batch_idx + 1) % trainer.accumulate_grad_batches
        if not accumulated or trainer.is_last_batch:  # an optimizer step is complete
            self._save_and_answer()
            self.validating = self.path is not None

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if self.validating and trainer.world_size > 1:
            self._exchange()
            self._answer()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.validating = False
        self._receive()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = time.monotonic()  # by the checkpoint callback

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._receive()

    def finish(self) -> None:
        """Raise Stopped if a signal came too late to stop training before its end."""
        if signum := self.agreed[_STOP] or self.requested[_STOP]:
            end = f"training is complete, its report is missing. Fix: hrseg report {self.run}"
            raise Stopped(signum, f"stopped {_by(signum)}; {end}")

    def _on_stop_signal(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested[_STOP]:
            if now - self._first > AGAIN:
                raise Stopped(signum, f"stopped {_by(signum)} at once; {self._how_to_resume()}")
            return
        self.requested[_STOP], self._first = signum, now
        if self.validating and self._trainer.world_size == 1:
            raise self._stopped(signum)
        if is_first_process():
            with suppress(OSError):  # the terminal may be closed
                os.write(2, b"hrseg: stopping after this batch; a second signal stops at once\n")

    def _on_requeue_signal(self, signum: int, frame: FrameType | None) -> None:
        if self.validating and self._trainer.world_size == 1:
            self._requeue_once()
        else:
            self.requested[_REQUEUE] = 1

    def _requeue_once(self) -> None:
        if self.requeue and self._trainer.is_global_zero:
            job = os.environ["SLURM_JOB_ID"]
            if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
                job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
            try:
                subprocess.run(["scontrol", "requeue", job], check=True)
            except (OSError, subprocess.CalledProcessError) as error:
                warnings.warn(f"the job was not requeued: {error}", stacklevel=2)
        self.requeue = False  # each process may receive the signal

    def _exchange(self) -> None:
        """Receive the requests of all processes, and send own requests without waiting."""
        self._receive()
        if self._group is not None:
            requests = torch.tensor(self.requested)
            work = torch.distributed.all_reduce(
                requests, torch.distributed.ReduceOp.MAX, self._group, async_op=True
            )
            self._pending = work, requests

    def _receive(self) -> None:
        if self._group is None:
            self.agreed = self.requested
        elif self._pending is not None:
            work, requests = self._pending
            self._pending = None
            work.wait()
            self.agreed = [max(pair) for pair in zip(self.agreed, requests.tolist(), strict=True)]

    def _save_and_answer(self) -> None:
        if self.path is not None:
            self._trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()
        self._answer()

    def _answer(self) -> None:
        self._receive()  # includes requests since the last exchange
        stop, requeue, due = self.agreed
        self.agreed = [stop, 0, 0]
        if due:
            self.requested[_DUE] = 0
        if requeue:
            self.requested[_REQUEUE] = 0
            self._requeue_once()
        if stop:
            raise self._stopped(stop)

    def _stopped(self, signum: int) -> Stopped:
        step = self._trainer.global_step
        return Stopped(signum, f"stopped {_by(signum)} after step {step}; {self._how_to_resume()}")

    def _how_to_resume(self) -> str:
        if self.path is None:
            return "nothing was saved, because trainer.enable_checkpointing is false"
        return f"to continue: hrseg fit --resume {self.run}"


class KeptHandler(Callback):
    """Restore the SIGTERM handler that Lightning replaces.

    Lightning's handler waits for all processes, which may be in another collective call.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _handle(signal.SIGTERM, self._handler)

    on_train_start = on_test_start = on_sanity_check_start

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            _handle(signal.SIGTERM, self._handler)


def _handle(signum: int, handler: Callable[..., Any] | int | None) -> None:
    """Set the handler of a signal, if it is not None and this is the main thread."""
    if handler is not None and current_thread() is main_thread():
        signal.signal(signum, handler)


def _by(signum: int) -> str:
    return f"by {signal.Signals(signum).name}"
