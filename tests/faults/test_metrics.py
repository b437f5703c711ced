"""The confusion matrix, to the pixel, however the evaluation is laid out."""

import json
import os
import random
import signal
import time
import traceback
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytorch_lightning as pl
import torch
from PIL import Image
from torch import Tensor, nn

from hrseg.config.protocols import Protocol
from hrseg.data.datasets.folder import Folder
from hrseg.inference.evaluator import Evaluator
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD
from hrseg.training.task import SegmentationTask
from tests.faults import counts

NAMES = ["a", "b", "c", "d", "e"]
SIZES = [(33, 70), (64, 64), (41, 57), (70, 33), (48, 96), (80, 37), (57, 58)]
SECONDS = 120  # until processes that do not end are a fault


class Looked(nn.Module):
    """A model whose logits are a table's row for the red byte of the pixel: nothing is rounded."""

    align_corners = False

    def __init__(self, seed: int) -> None:
        """Draw the table; equal logits occur."""
        super().__init__()
        self.architecture = {"num_classes": len(NAMES)}
        self.table = torch.from_numpy(np.random.default_rng(seed).integers(-6, 7, (256, 5))).float()

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits (B, K, H, W) of normalised images."""
        red = (image[:, 0].float() * IMAGENET_STD[0] + IMAGENET_MEAN[0]) * 255
        return {"out": self.table[red.round().long()].permute(0, 3, 1, 2)}


@counts(6, 240)
def test_processes_workers_order_and_windows_do_not_change_the_confusion_matrix(count, tmp_path):
    """Evaluate drawn layouts by real processes; compare each with NumPy's count."""
    folder = tmp_path
    draw, lost = random.Random(0), []
    torch.set_num_threads(1)
    images, masks = write_images(folder, 0)
    for number in range(count):
        layout = drawn(draw, number)
        (folder / "list.txt").write_text("".join(f"{i}\n" for i in layout.order))
        expected = oracle(layout, images, masks)
        if fault := wrong(layout, expected, run(folder, number, layout)):
            lost.append(fault)
    assert not lost, "\n".join(lost)


def drawn(draw: random.Random, number: int) -> SimpleNamespace:
    """Return one way to lay out an evaluation."""
    window = (draw.randint(32, 80), draw.randint(32, 80)) if draw.random() < 0.75 else ()
    stride = tuple(draw.randint(side // 5, side) for side in window) if draw.random() < 0.8 else ()
    several = draw.random() < 0.3
    return SimpleNamespace(
        processes=(1, 2, 3, 5)[number % 4],
        workers=draw.choice([0, 0, 1, 2]),
        order=draw.sample(range(7), 1 if number % 8 == 3 else draw.choice([7, 7, 7, 2])),
        window_batch=draw.randint(1, 6),
        precision=draw.choice(["32-true", "bf16-mixed"]),
        seed=draw.randrange(1000),
        protocol=Protocol(
            scales=draw.choice([(0.5, 1.0), (1.0, 1.75)]) if several else (1.0,),
            window=window, stride=stride, window_border=draw.choice(["shift", "pad"]),
            flip=draw.random() < 0.4, flip_average=draw.choice(["logits", "scores"]),
            average=draw.choice(["softmax", "exp_logits", "logits"]),
            scores_at=draw.choice(["window", "image"]),
        ),
    )  # fmt: skip


def write_images(folder: Path, seed: int) -> tuple[list[Any], list[Any]]:
    """Write seven images of unequal sizes, a fifth of each unlabelled."""
    random = np.random.default_rng(seed)
    images, masks = [], []
    for index, size in enumerate(SIZES):
        coarse = random.integers(0, 256, (size[0] // 4 + 1, size[1] // 4 + 1, 3), np.uint8)
        images.append(coarse.repeat(4, 0).repeat(4, 1)[: size[0], : size[1]])
        masks.append(random.choice([0, 1, 2, 3, 4, 255], size).astype(np.uint8))
        for kind, array in (("images", images[-1]), ("masks", masks[-1])):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(folder / kind / f"{index}.png")
    return images, masks


def oracle(layout: SimpleNamespace, images: list[Any], masks: list[Any]) -> npt.NDArray[np.int64]:
    """Count with NumPy; at scale 1 the classes come from the table, without hrseg."""
    matrix = np.zeros((5, 5), np.int64)
    model = Looked(layout.seed)
    for index in layout.order:
        classes = np.asarray(model.table)[images[index][..., 0]].argmax(-1)
        if layout.protocol.scales != (1.0,):
            classes = whole(model, layout.protocol, images[index])
        labelled = masks[index] != 255
        np.add.at(matrix, (masks[index][labelled], classes[labelled]), 1)
    return matrix


def whole(model: Looked, protocol: Protocol, image: Any) -> npt.NDArray[np.uint8]:
    """Return the classes of an image that is run whole, in one piece."""
    plain = Protocol(**{**protocol.to_dict(), "window": (), "stride": ()})
    task = SegmentationTask(model, NAMES)  # type: ignore[arg-type]
    evaluate = Evaluator(lambda x: model.outputs(x)["out"], task.normalize, plain)
    return evaluate(torch.from_numpy(image).permute(2, 0, 1)[None].contiguous()).pred.numpy()


def run(folder: Path, number: int, layout: SimpleNamespace) -> list[Any]:
    """Return what each process has found, or how it ended."""
    children = {}
    for rank in range(layout.processes):
        children[rank] = os.fork()
        if not children[rank]:
            child(folder, number, layout, rank)
    deadline, ends = time.monotonic() + SECONDS, {}
    while len(ends) < len(children):
        for rank in children.keys() - ends.keys():
            done, status = os.waitpid(children[rank], os.WNOHANG)
            if done:
                ends[rank] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(children[rank], signal.SIGKILL)
        time.sleep(0.005)
    found = []
    for rank in children:
        said = (folder / f"{number}.{rank}").read_text()
        found.append(json.loads(said) if not ends[rank] else f"exit {ends[rank]}: {said[-300:]}")
    return found


def child(folder: Path, number: int, layout: SimpleNamespace, rank: int) -> None:
    """Evaluate this process's share with hrseg and Lightning; write down the scores."""
    answer, code = folder / f"{number}.{rank}", 1
    answer.write_text("")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    try:
        torch.set_num_threads(1)
        options: dict[str, Any] = {}
        if layout.processes > 1:
            options = {"devices": layout.processes, "strategy": "ddp"}
            store = f"file://{folder}/store{number}"
            join(store, rank, layout.processes)
        data = Folder(str(folder), class_names=NAMES, val_split="list.txt", workers=layout.workers)
        task = SegmentationTask(
            Looked(layout.seed), NAMES, protocol=layout.protocol,  # type: ignore[arg-type]
            window_batch=layout.window_batch,
        )  # fmt: skip
        trainer = pl.Trainer(
            accelerator="cpu", precision=layout.precision, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            use_distributed_sampler=False, default_root_dir=folder, **options,
        )  # fmt: skip
        trainer.validate(task, data, verbose=False)
        answer.write_text(json.dumps([task.scores["confusion_matrix"], task.scores["images"]]))
        code = 0
    except BaseException:
        answer.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def join(store: str, rank: int, processes: int) -> None:
    """Meet the others over a file, and let Lightning think that torchrun has started all."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "GROUP_RANK": 0, "WORLD_SIZE": processes,
             "LOCAL_WORLD_SIZE": processes, "TORCHELASTIC_RUN_ID": "faults",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1, "GLOO_SOCKET_IFNAME": "lo"}  # fmt: skip
    os.environ.update({name: str(value) for name, value in place.items()})
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)


def wrong(layout: SimpleNamespace, expected: npt.NDArray[np.int64], found: list[Any]) -> str | None:
    """Return what differs, None if nothing does."""
    good = [expected.tolist(), len(layout.order)]
    bad = [(rank, each) for rank, each in enumerate(found) if each != good]
    return f"{layout}: expected {good}, process {bad[0][0]}: {bad[0][1]}" if bad else None
