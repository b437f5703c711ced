"""Out-of-memory errors."""

from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from hrseg.config.protocols import Protocol
from hrseg.inference.evaluator import Evaluator
from hrseg.utils.memory import OutOfMemory, free_memory, is_out_of_memory, of_training
from tests.conftest import noise, silent_trainer, tiny_task


class Limited:
    """A model that is out of memory above a number of pixels."""

    def __init__(self, pixels):
        self.pixels, self.sizes = pixels, []

    def __call__(self, image):
        self.sizes.append(len(image))
        if image[:, 0].numel() > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return torch.cat([image[:, :2] * 3, image.roll(1, -1)[:, 2:]], 1)[..., ::2, ::2]


@pytest.mark.parametrize("cuda", [True, False])
def test_free_memory_is_of_the_cuda_device_if_there_is_one(monkeypatch, cuda):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (5, 9))
    ram = SimpleNamespace(available=3, total=4)
    monkeypatch.setattr("psutil.virtual_memory", lambda: ram)
    assert free_memory() == ((5, True) if cuda else (3, False))


def evaluator(model, batch=4, **protocol):
    values = {"window": (32, 32), "stride": (24, 24), "flip": True, **protocol}
    return Evaluator(model, lambda image: image / 255, Protocol(**values), batch=batch)


def picture(height=70, width=90):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_evaluation_continues_with_fewer_windows_and_the_same_scores(fits):
    whole = evaluator(Limited(10**9))(picture(), keep_scores=True)
    small = evaluator(Limited(fits * 32 * 32))
    with pytest.warns(UserWarning, match=r"out of memory with 4 images of 32x32 at once"):
        less = small(picture(), keep_scores=True)
    assert small.batch == {1: 1, 2: 2, 3: 2}[fits]
    assert less.pred.equal(whole.pred) and less.scores.equal(whole.scores)
    small.model.sizes.clear()
    small(picture())  # remembered, so that it warns once
    assert max(small.model.sizes) == small.batch


def test_out_of_memory_with_one_window_is_an_error_with_a_fix():
    small = evaluator(Limited(10))
    with (
        pytest.warns(UserWarning),
        pytest.raises(OutOfMemory, match=r"not even one image of 32x32(.|\n)*precision"),
    ):
        small(picture())


class Narrowed(pl.Callback):
    """Sets the evaluator's batch to one window."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        pl_module.evaluator.batch = 1


def test_the_next_validation_starts_with_the_reduced_batch(tmp_path):
    task, trainer = tiny_task(), silent_trainer(tmp_path, callbacks=[Narrowed()])
    trainer.validate(task, DataLoader(noise(1), 1), verbose=False)
    assert task.window_batch == 1


def test_out_of_memory_in_training_is_reported_with_fix_and_resume(tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    message = str(of_training(8, (512, 1024), last))
    assert "8 crops of 512x1024 at once" in message and "data.batch_size" in message
    assert "--resume" not in message and len(message.splitlines()) == 3
    last.parent.mkdir(parents=True)
    last.touch()
    assert f"hrseg fit --resume {tmp_path / 'run'}" in str(of_training(8, (512, 1024), last))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Failed to allocate memory for requested buffer of size 1", True),
        ("std::bad_alloc", True),
        (
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=a ; expr=cudaMalloc((void**)&p, n)",
            True,
        ),
        ("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; expr=cublasCreate(&h)", True),
        ("Available memory of 0 is smaller than requested bytes of 256", True),
        ("p != nullptr was false. Memory allocation failed. Size=64", True),
        ("CUDA failure 100: no CUDA-capable device is detected ; GPU=-1", False),
        ("shape mismatch", False),
    ],
)
def test_messages_of_libraries_are_recognised(message, expected):
    assert is_out_of_memory(RuntimeError(message)) is expected


@pytest.mark.parametrize("make", [lambda: torch.empty(2**44), lambda: np.zeros(2**50)])
def test_exceptions_of_libraries_are_recognised(make):
    with pytest.raises(Exception) as error:
        make()
    assert is_out_of_memory(error.value)
