"""The place in the data: counted by Lightning, taken up again by the loader."""

from types import SimpleNamespace as Space

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops.progress import _BatchProgress, _ProcessedTracker, _Progress

from hrseg.data import CamVid
from hrseg.data.samplers import Position, position
from hrseg.errors import ConfigError
from tests.camvid_tree import make_camvid
from tests.conftest import silent_trainer


def standing(epochs, batches, last=False):
    epoch = _Progress(current=_ProcessedTracker(started=epochs[0], processed=epochs[1]))
    current = _ProcessedTracker(processed=batches[0], completed=batches[1])
    batch = _BatchProgress(current=current, is_last_batch=last)
    loop = Space(epoch_progress=epoch, epoch_loop=Space(batch_progress=batch))
    return position(Space(fit_loop=loop), 9)


@pytest.mark.parametrize(
    ("epochs", "batches", "last", "place"),
    [
        ((0, 0), (0, 0), False, (0, 0, 9)),
        ((3, 2), (4, 4), False, (2, 4, 9)),  # between two batches of the third epoch
        ((3, 2), (4, 3), False, (2, 4, 9)),  # in on_train_batch_end
        ((3, 2), (9, 9), True, (2, 9, 9)),  # validating
        ((3, 2), (9, 8), True, (3, 0, 9)),  # after the last batch Lightning begins a new epoch
        ((3, 3), (9, 9), True, (3, 0, 9)),  # at the end of the third epoch
    ],
)
def test_the_place_is_what_is_trained_not_what_is_fetched(epochs, batches, last, place):
    assert standing(epochs, batches, last) == Position(*place)


class Watch(pl.LightningModule):
    """Trains nothing; keeps the names that it saw, and stops where it is told to."""

    def __init__(self, stop_after=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen, self.stop_after = [], stop_after

    def training_step(self, batch, batch_idx):
        self.seen.append((self.current_epoch, *batch["name"], int(batch["image"].sum())))
        return self.weight.sum()

    def on_train_batch_start(self, batch, batch_idx):
        if len(self.seen) == self.stop_after:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/state.ckpt")
            raise InterruptedError

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def train(root, folder, module, state=None, **arguments):
    data = CamVid(str(root), **{"batch_size": 2, "crop_size": (32, 40), **arguments})
    trainer = silent_trainer(folder, max_epochs=3, limit_val_batches=0)
    trainer.fit(module, data, ckpt_path=state, weights_only=True)
    return module.seen


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [1, 3, 4, 7])
def test_any_trainer_goes_on_with_the_sample_after_the_last(done, workers, tmp_path):
    root = make_camvid(tmp_path / "camvid", train=7, val=1)
    whole = train(root, tmp_path, Watch(), workers=0)
    first = Watch(stop_after=done)
    with pytest.raises(InterruptedError):
        train(root, tmp_path, first, workers=workers)
    rest = train(root, tmp_path, Watch(), state=tmp_path / "state.ckpt", workers=workers)
    assert first.seen == whole[:done]
    assert rest == whole[done:]
    assert len(whole) == 9


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_amid_an_epoch_another_batch_size_is_refused(tmp_path):
    root = make_camvid(tmp_path / "camvid", train=8, val=1)
    with pytest.raises(InterruptedError):
        train(root, tmp_path, Watch(stop_after=2), workers=0)
    with pytest.raises(ConfigError, match=r"2 batches into epoch 1, of 4 batches; .* has 2"):
        train(root, tmp_path, Watch(), tmp_path / "state.ckpt", workers=0, batch_size=4)
