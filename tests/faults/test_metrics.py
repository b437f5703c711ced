"""Exact confusion matrix in evaluations with different processes, workers, order and windows."""

import json
import multiprocessing
import os
import random
import traceback
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from hrseg.config.protocols import Protocol
from hrseg.data.datasets.folder import Folder
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD
from hrseg.training.task import SegmentationTask
from tests.conftest import save_image, silent_trainer
from tests.faults import inject
from tests.faults.test_signals import free_port, torchrun

NAMES = ["a", "b", "c", "d", "e"]
SIZES = [(33, 70), (64, 64), (41, 57), (70, 33), (48, 96), (80, 37), (57, 58)]
SECONDS = 120  # maximum seconds of a process


class TableModel(nn.Module):
    """Model that maps the red byte of a pixel to logits by a table, with some equal logits."""

    align_corners = False

    def __init__(self, seed):
        super().__init__()
        self.architecture = {"num_classes": len(NAMES)}
        self.table = torch.from_numpy(np.random.default_rng(seed).integers(-6, 7, (256, 5))).float()

    def outputs(self, image):
        red = (image[:, 0].float() * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
        return {"out": self.table[red.round().long()].permute(0, 3, 1, 2)}

    def upsample(self, logits, size):
        return logits


@inject(6, 240)
def test_processes_workers_order_and_windows_do_not_change_the_confusion_matrix(count, tmp_path):
    """Evaluate random layouts in real processes, and compare each with a count by NumPy."""
    draw, values = random.Random(0), np.random.default_rng(0)
    images, masks = [], []
    for index, size in enumerate(SIZES):
        coarse = values.integers(0, 256, (*(side // 4 + 1 for side in size), 3), np.uint8)
        images.append(coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]])
        masks.append(values.choice([0, 1, 2, 3, 4, 255], size).astype(np.uint8))
        save_image(tmp_path / f"images/{index}.png", images[-1])
        save_image(tmp_path / f"masks/{index}.png", masks[-1])
    for number in range(count):
        layout = random_layout(draw, number)
        (tmp_path / "list.txt").write_text("".join(f"{i}\n" for i in layout.order))
        expected = [oracle(layout, images, masks), len(layout.order)]
        for result in run(tmp_path, layout):
            yield None if result == expected else f"{layout}: expected {expected}, got {result}"


def random_layout(draw, number):
    window = (draw.randint(32, 80), draw.randint(32, 80)) if draw.random() < 0.75 else ()
    stride = tuple(draw.randint(side // 5, side) for side in window) if draw.random() < 0.8 else ()
    return SimpleNamespace(
        processes=(1, 2, 3, 5)[number % 4],
        workers=draw.choice([0, 0, 1, 2]),
        order=draw.sample(range(7), 1 if number % 8 == 3 else draw.choice([7, 7, 7, 2])),
        window_batch=draw.randint(1, 6),
        precision=draw.choice(["32-true", "bf16-mixed"]),
        seed=draw.randrange(1000),
        protocol=Protocol(
            window=window, stride=stride, window_border=draw.choice(["shift", "pad"]),
            flip=draw.random() < 0.4, flip_average=draw.choice(["logits", "scores"]),
            average=draw.choice(["softmax", "exp_logits", "logits"]),
            scores_at=draw.choice(["window", "image"]),
        ),
    )  # fmt: skip


def oracle(layout, images, masks):
    """Return the confusion matrix, counted by NumPy without hrseg."""
    matrix = np.zeros((5, 5), np.int64)
    table = TableModel(layout.seed).table.numpy()
    for index in layout.order:
        classes = table[images[index][..., 0]].argmax(-1)
        labelled = masks[index] != 255
        np.add.at(matrix, (masks[index][labelled], classes[labelled]), 1)
    return matrix.tolist()


def run(folder, layout):
    """Return the confusion matrix and the number of images of each process, or its error."""
    context, port = multiprocessing.get_context("fork"), free_port()
    ranks = range(layout.processes)
    processes = [context.Process(target=child, args=(folder, layout, r, port)) for r in ranks]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        process.kill()
        process.join()
    return [json.loads((folder / f"{rank}.json").read_text() or "null") for rank in ranks]


def child(folder, layout, rank, port):
    result_file, options = folder / f"{rank}.json", {}
    result_file.write_text("")
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    if layout.processes > 1:
        options = {"devices": layout.processes, "strategy": "ddp"}
        os.environ.update(torchrun(rank, port, layout.processes), GLOO_SOCKET_IFNAME="lo")
    try:
        data = Folder(str(folder), class_names=NAMES, val_split="list.txt", workers=layout.workers)
        task = SegmentationTask(TableModel(layout.seed), NAMES, protocol=layout.protocol,
                                window_batch=layout.window_batch)  # fmt: skip
        trainer = silent_trainer(folder, precision=layout.precision, use_distributed_sampler=False,
                                 **options)  # fmt: skip
        trainer.validate(task, data, verbose=False)
        result = [task.scores["confusion_matrix"], task.scores["images"]]
    except BaseException:
        result = [traceback.format_exc()]
    result_file.write_text(json.dumps(result))
    os._exit(0)
