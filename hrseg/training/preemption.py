"""Preemption: save and stop at a signal, requeue under SLURM, save at intervals."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.connectors.signal_connector import _HandlersCompose
from pytorch_lightning.trainer.states import TrainerFn

from hrseg.checkpoints.runs import is_first_process
from hrseg.utils.signals import AGAIN, Stopped, stop_signals

_STOP, _REQUEUE, _DUE = range(3)  # what a process is told: the signal, and two yes or no


class Interruption(Callback):
    """Save the state and end the training when a signal comes; save it now and then as well.

    SIGTERM, SIGINT, the end of the terminal, and that of whoever reads what is printed, end the
    training after the batch that is under way, in all processes after the same one, whichever of
    them was told. Amid a validation they end it at once: the state was saved before it. SLURM's
    requeue signal, which Lightning answers amid a batch, is answered between two.
    """

    def __init__(self, run: Path, save: bool = True, every_minutes: float | None = None) -> None:
        """Save as `run/checkpoints/last.ckpt`.

        Args:
            run: the run folder.
            save: whether this training keeps checkpoints.
            every_minutes: save at the latest so long after the last time; None: at signals,
                before validations, and at the ends of epochs.
        """
        self.run = run
        self.path = run / "checkpoints" / "last.ckpt" if save else None
        self.every = 60 * every_minutes if every_minutes and save else float("inf")
        self.told = [0, 0, 0]  # this process
        self.agreed = [0, 0, 0]  # all of them
        self.validating = False  # and the state of before is on the disk
        self._first = self._saved = 0.0
        self._requeue: Callable[..., Any] | None = None
        self._group: Any = None
        self._asked: tuple[Any, torch.Tensor] | None = None
        self._trainer: pl.Trainer | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take from Lightning what would answer a signal in its way."""
        self._trainer = trainer
        # At each step the processes ask the first one whether it was told, and wait for it.
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen, from here on."""
        self._saved = time.monotonic()
        if trainer.world_size > 1:
            self._group = torch.distributed.new_group(backend="gloo")
        if current_thread() is main_thread():
            for signum in stop_signals():
                signal.signal(signum, self._hear)
            self._take_requeue(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Do what was asked for, if a step of the optimiser is complete."""
        if trainer.is_global_zero and time.monotonic() - self._saved > self.every:
            self.told[_DUE] = 1
        self._ask(trainer)
        if any(self.agreed) and batch_idx % trainer.accumulate_grad_batches == 0:
            self._save(trainer)
            self._answer(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save first: a validation may take long."""
        if trainer.sanity_checking or trainer.state.fn != TrainerFn.FITTING:
            return
        self._read()
        if not trainer.fit_loop._should_accumulate():
            self._save(trainer)
            self._answer(trainer)
            self.validating = self.path is not None

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop at once, as soon as all processes know."""
        if self.validating and trainer.world_size > 1:
            self._ask(trainer)
            self._answer(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on the state of before is not enough."""
        self.validating = False
        self._read()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The state is saved now."""
        self._saved = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave no question unanswered."""
        self._read()

    def finish(self) -> None:
        """Raise Stopped if the training was told to stop and has ended by itself meanwhile."""
        if signum := self.agreed[_STOP] or self.told[_STOP]:
            raise Stopped(
                signum,
                f"stopped {_by(signum)}; the training has ended, its report is not written: "
                f"hrseg report {self.run}",
            )

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.told[_STOP]:
            if now - self._first > AGAIN:
                raise Stopped(signum, f"stopped {_by(signum)} at once; {self._go_on()}")
            return
        self.told[_STOP], self._first = signum, now
        assert self._trainer is not None
        if self.validating and self._trainer.world_size == 1:
            raise self._stopped(signum)
        if is_first_process():
            with suppress(OSError):  # the terminal may be gone
                os.write(2, b"hrseg: stopping after this batch; once more stops at once\n")

    def _take_requeue(self, trainer: pl.Trainer) -> None:
        """Put a note in the place of the handler that Lightning has set for SLURM's signal."""
        environment = trainer._accelerator_connector.cluster_environment
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue and self.path:
            signum = environment.requeue_signal or signal.SIGUSR1
            handler = signal.getsignal(signum)
            if isinstance(handler, _HandlersCompose):
                self._requeue = handler
                signal.signal(signum, self._hear_requeue)

    def _hear_requeue(self, signum: int, frame: FrameType | None) -> None:
        assert self._trainer is not None
        if self.validating and self._trainer.world_size == 1:
            self._requeue_now(self._trainer, signum)
        else:
            self.told[_REQUEUE] = signum

    def _requeue_now(self, trainer: pl.Trainer, signum: int) -> None:
        """Let Lightning ask SLURM for another turn; what it would save is saved already."""
        requeue, self._requeue = self._requeue, None  # once, though each process is told
        if requeue is not None:
            with _without_saving(trainer):
                requeue(signum, None)

    def _ask(self, trainer: pl.Trainer) -> None:
        """Learn what all processes were told by the last time; ask for the next.

        The answer travels while they compute: none waits for it.
        """
        self._read()
        if self._group is None:
            return
        mine = torch.tensor(self.told)
        work = torch.distributed.all_reduce(
            mine, torch.distributed.ReduceOp.MAX, self._group, async_op=True
        )
        self._asked = work, mine

    def _read(self) -> None:
        """Take the answer, if one was asked for; one process asks nobody."""
        if self._group is None:
            self.agreed = self.told
        elif self._asked is not None:
            work, answer = self._asked
            self._asked = None
            work.wait()
            self.agreed = [max(pair) for pair in zip(self.agreed, answer.tolist(), strict=True)]

    def _answer(self, trainer: pl.Trainer) -> None:
        """Do what was asked for; the state is saved."""
        self._read()  # what was asked just now is answered with it
        stop, requeue, due = self.agreed
        self.agreed = [stop, 0, 0]
        if due:
            self.told[_DUE] = 0
        if requeue:
            self.told[_REQUEUE] = 0
            self._requeue_now(trainer, requeue)
        if stop:
            raise self._stopped(stop)

    def _save(self, trainer: pl.Trainer) -> None:
        if self.path is not None:
            trainer.save_checkpoint(self.path)
            self._saved = time.monotonic()

    def _stopped(self, signum: int) -> Stopped:
        assert self._trainer is not None
        step = self._trainer.global_step
        return Stopped(signum, f"stopped {_by(signum)} after step {step}; {self._go_on()}")

    def _go_on(self) -> str:
        if self.path is None:
            return "nothing was saved, as trainer.enable_checkpointing=false asks"
        return f"to go on: hrseg fit --resume {self.run}"


@contextmanager
def _without_saving(trainer: pl.Trainer) -> Iterator[None]:
    trainer.save_checkpoint = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del trainer.save_checkpoint


def _by(signum: int) -> str:
    return f"by {signal.Signals(signum).name}"
