"""Memory that does not suffice."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from hrseg.config.protocols import Protocol
from hrseg.evaluation.image_scores import ImageScores
from hrseg.inference.evaluator import Evaluator
from hrseg.training.callbacks import PredictionImages
from hrseg.utils.memory import OutOfMemory, is_out_of_memory, of_training
from tests.conftest import noise, silent_trainer, tiny_task
from tests.faults.test_numbers import fresh_memory_alone


class Limited:
    """A model that takes so many pixels at once."""

    def __init__(self, pixels):
        self.pixels, self.sizes = pixels, []

    def __call__(self, image):
        self.sizes.append(len(image))
        if image[:, 0].numel() > self.pixels:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return torch.cat([image[:, :2] * 3, image.roll(1, -1)[:, 2:]], 1)[..., ::2, ::2]


def evaluator(model, batch=4, **protocol):
    said = {"window": (32, 32), "stride": (24, 24), "flip": True, **protocol}
    return Evaluator(model, lambda image: image / 255, Protocol(**said), batch=batch)


def picture(height=70, width=90):
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=draw)


@pytest.mark.parametrize("fits", [1, 2, 3])
def test_evaluation_goes_on_with_fewer_windows_and_the_same_scores(fits):
    whole = evaluator(Limited(10**9))(picture(), keep_scores=True)
    small = evaluator(Limited(fits * 32 * 32))
    with pytest.warns(UserWarning, match=r"out of memory with 4 images of 32x32 at once"):
        less = small(picture(), keep_scores=True)
    assert small.batch == {1: 1, 2: 2, 3: 2}[fits]
    assert less.pred.equal(whole.pred) and less.scores.equal(whole.scores)


def test_it_is_said_once_and_remembered():
    model = Limited(32 * 32)
    small = evaluator(model)
    with pytest.warns(UserWarning) as said:
        small(picture())
    model.sizes.clear()
    small(picture())
    assert len(said) == 2  # 4 to 2, 2 to 1
    assert set(model.sizes) == {1}


def test_one_window_that_does_not_fit_is_an_error_that_says_what_to_change():
    small = evaluator(Limited(10))
    with (
        pytest.warns(UserWarning),
        pytest.raises(OutOfMemory, match=r"not even one image of 32x32(.|\n)*precision"),
    ):
        small(picture())


class Narrowed(pl.Callback):
    """Lets the memory suffice for one window at once."""

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        pl_module.evaluator.batch = 1


def test_the_next_validation_begins_with_what_the_memory_sufficed_for(tmp_path):
    task, trainer = tiny_task(), silent_trainer(tmp_path, callbacks=[Narrowed()])
    trainer.validate(task, DataLoader(noise(1), 1), verbose=False)
    assert task.window_batch == 1


def test_out_of_memory_in_training_says_how_much_was_asked_for_and_how_to_go_on(tmp_path):
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    said = str(of_training(8, (512, 1024), last))
    assert "8 crops of 512x1024 at once" in said and "data.batch_size" in said
    assert "--resume" not in said
    last.parent.mkdir(parents=True)
    last.touch()
    assert f"hrseg fit --resume {tmp_path / 'run'}" in str(of_training(8, (512, 1024), last))


def test_other_errors_of_a_model_are_passed_on():
    def broken(image):
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        evaluator(broken)(picture())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("Failed to allocate memory for requested buffer of size 1"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shape mismatch"), False),
        (KeyboardInterrupt("out of memory"), False),
    ],
)
def test_what_libraries_say_of_memory_is_recognised(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("make", [lambda: torch.empty(2**44), lambda: np.zeros(2**50)])
def test_what_they_really_raise_is_recognised(make):
    with pytest.raises(Exception) as error:
        make()
    assert is_out_of_memory(error.value)


@pytest.mark.slow  # what other tests have freed would be enough for it
def test_a_real_limit_is_lived_with():
    """180 MB are less than the 4 x 64 x 512 x 512 float32 values of four windows."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            fresh_memory_alone()
            resource.setrlimit(resource.RLIMIT_AS, (now + 180 * 2**20,) * 2)
            work = evaluator(wide, window=(512, 512), stride=(512, 512), flip=False)
            pred = work(picture(1024, 1024)).pred
            os.write(writer, f"{work.batch} {int(pred.sum())}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        batch, total = pipe.read().split()
    assert os.waitpid(child, 0)[1] == 0
    free = evaluator(wide, window=(512, 512), stride=(512, 512), flip=False)
    assert int(total) == int(free(picture(1024, 1024)).pred.sum())
    assert free.batch == 4 and int(batch) < 4


def wide(image):
    """64 channels at full size, and two of them."""
    layers = image[:, :1].repeat(1, 64, 1, 1)
    return torch.cat([layers[:, :1], 1 - layers[:, 1:2]], 1)[..., ::4, ::4]


class Watch(pl.Callback):
    """What the process holds, in MiB, after every so many validation images."""

    def __init__(self):
        self.held = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, *_):
        if batch_idx % 100 == 99:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.held.append(pages * resource.getpagesize() / 2**20)


class Many:
    """A thousand images of 256x512."""

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        image = picture(256, 512)[0]
        return {"image": image, "mask": image[0] // 86, "name": f"{index}"}


@pytest.mark.slow
def test_what_validation_holds_does_not_grow_with_the_number_of_images(tmp_path):
    task = tiny_task(["a", "b", "c"], protocol=Protocol(scales=(0.5, 1.0), flip=True))
    watch, folder = Watch(), tmp_path / "run"
    callbacks = [watch, ImageScores(folder, tmp_path / "none.ckpt"), PredictionImages(4, folder)]
    trainer = silent_trainer(folder, callbacks=callbacks)
    trainer.validate(task, DataLoader(Many(), 1), verbose=False)
    print([round(held) for held in watch.held])
    slope = np.polyfit(range(200, 1001, 100), watch.held[1:], 1)[0]
    assert task.scores["images"] == 1000
    assert abs(slope) < 0.01  # MiB per image, of which each has 0.5
