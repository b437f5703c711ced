"""Contract tests of private parts of Lightning; a failure names the part that changed."""

import inspect

import pytest
import pytorch_lightning as pl

from hrseg.training.lightning_internals import (
    VERSION,
    begin_next_epoch,
    skip_sigterm_broadcast,
)
from tests.conftest import silent_trainer
from tests.training.test_preemption import Plain, loaders

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
COUNTS = {"ready", "started", "processed", "completed"}


def changed(part):
    return (
        f"pytorch-lightning {pl.__version__} changes {part}, which hrseg uses as of {VERSION}: "
        "adapt hrseg/training/lightning_internals.py"
    )


def test_lightning_broadcasts_sigterm_in_a_method_of_the_epoch_loop(tmp_path):
    trainer = silent_trainer(tmp_path)
    loop = type(trainer.fit_loop.epoch_loop)
    part = "_TrainingEpochLoop._broadcast_sigterm_tensor"
    assert hasattr(loop, "_broadcast_sigterm_tensor"), changed(part)
    assert "self._broadcast_sigterm_tensor()" in inspect.getsource(loop.advance), changed(part)
    skip_sigterm_broadcast(trainer)
    assert trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor() is None


def test_the_state_of_the_fit_loop_has_the_expected_layout(tmp_path):
    trainer = silent_trainer(tmp_path, max_epochs=1)
    trainer.fit(Plain(), *loaders())
    loops = trainer.fit_loop.state_dict()
    layout = {"epoch_progress": False, "epoch_loop.batch_progress": True,
              "epoch_loop.val_loop.batch_progress": True}  # fmt: skip
    for key, has_last in layout.items():
        part = f"the layout of {key} in a checkpoint"
        assert key in loops, changed(part)
        counts = {name: set(loops[key][name]) for name in ("total", "current")}
        assert counts == {"total": COUNTS, "current": COUNTS}, changed(part)
        assert ("is_last_batch" in loops[key]) == has_last, changed(part)
    steps = loops["epoch_loop.state_dict"].get("_batches_that_stepped")
    assert steps == 6, changed("_batches_that_stepped in a checkpoint")


@pytest.mark.parametrize("more", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 12}])
def test_a_state_between_two_epochs_is_followed_by_the_next_epoch(more, tmp_path):
    class Begin(pl.Callback):
        def on_train_start(self, trainer, pl_module):
            begin_next_epoch(trainer)

    keep = pl.callbacks.ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True)
    once = {**more, "max_steps": 6} if "max_steps" in more else {"max_epochs": 1}
    trainer = silent_trainer(tmp_path, **once, callbacks=[keep], enable_checkpointing=True)
    trainer.fit(Plain(), *loaders())
    more = {**more, "num_sanity_val_steps": 0, "callbacks": [Begin()]}
    module, trainer = Plain(), silent_trainer(tmp_path, **more)
    trainer.fit(module, *loaders(), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    part = "the restart of a fit loop"
    assert (module.trained, module.validated, trainer.global_step) == (6, 3, 12), changed(part)
