"""Resume position: counted by the training loader, saved by the DataModule."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from hrseg.data import CamVid
from hrseg.errors import ConfigError
from hrseg.training.exact_resume import ExactState
from hrseg.utils.augmentations import AUGMENTATIONS
from tests.camvid_tree import make_camvid
from tests.conftest import silent_trainer


class Recorder(pl.LightningModule):
    """Model without training that records its samples and stops after `stop_after` batches."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.samples, self.stop_after = [], stop_after

    def training_step(self, batch, batch_idx):
        self.samples.append((self.current_epoch, *batch["name"], int(batch["image"].sum())))
        return self.weight.sum()

    def on_train_batch_start(self, batch, batch_idx):
        if len(self.samples) == self.stop_after:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/state.ckpt")
            raise InterruptedError

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if -len(self.samples) == (self.stop_after or 0):
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/state.ckpt")
            raise InterruptedError

    def configure_optimizers(self):
        assert (
            self.trainer.estimated_stepping_batches
        )  # creates the loader before the state is loaded
        return torch.optim.SGD(self.parameters(), 0.1)


def train(root, folder, module, state=None, exact=False, **arguments):
    data = CamVid(str(root), **{"batch_size": 2, "crop_size": (32, 40), **arguments})
    callbacks = [ExactState(Path(folder))] if exact else []
    trainer = silent_trainer(folder, max_epochs=3, limit_val_batches=0, callbacks=callbacks)
    trainer.fit(module, data, ckpt_path=state, weights_only=True)
    return module.samples


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("uniform", [0, 0.5])
@pytest.mark.parametrize("between", [True, False])
@pytest.mark.parametrize("done", [1, 3, 4])
def test_training_resumes_with_the_next_sample(done, between, uniform, workers, tmp_path):
    """Saved after a batch, by any trainer, or before the next batch, by ExactState."""
    root = make_camvid(tmp_path / "camvid", train=7, val=1)
    options = {"class_uniform": uniform, "exact": between}
    whole = train(root, tmp_path, Recorder(), workers=0, **options)
    first = Recorder(stop_after=done if between else -done)
    with pytest.raises(InterruptedError):
        train(root, tmp_path, first, workers=workers, **options)
    state = tmp_path / "state.ckpt"
    rest = train(root, tmp_path, Recorder(), state=state, workers=workers, **options)
    assert first.samples == whole[:done]
    assert rest == whole[done:]
    assert len(whole) == 9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_augmented_training_resumes_with_the_same_samples(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=7, val=1)
    options = {"crop_size": (40, 40), "augment": list(AUGMENTATIONS), "exact": True}
    whole = train(root, tmp_path, Recorder(), workers=0, **options)
    with pytest.raises(InterruptedError):
        train(root, tmp_path, Recorder(stop_after=4), workers=2, **options)
    rest = train(root, tmp_path, Recorder(), tmp_path / "state.ckpt", workers=2, **options)
    assert rest == whole[4:] and len(set(whole)) == 9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_batch_size_within_an_epoch_is_refused(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=8, val=1)
    with pytest.raises(InterruptedError):
        train(root, tmp_path, Recorder(stop_after=-2), workers=0)
    with pytest.raises(ConfigError, match=r"2 batches into epoch 1, of 4 batches; .* has 2"):
        train(root, tmp_path, Recorder(), tmp_path / "state.ckpt", workers=0, batch_size=4)


@pytest.mark.filterwarnings("ignore")
def test_overfit_batches_train_with_lightnings_own_loader(camvid):
    data, module = CamVid(str(camvid), batch_size=2, crop_size=(32, 40), workers=1), Recorder()
    silent_trainer(camvid, max_epochs=2, limit_val_batches=0, overfit_batches=1).fit(module, data)
    assert [epoch for epoch, *_ in module.samples] == [0, 1]
