#!/usr/bin/env python3
"""Comparison of hrseg with the authors' implementation: ratios of time and memory, with spread.

    compare.py                                  all rows, as a table
    compare.py --json F --pairs 7               also a file {key: {"ratio", "spread", "ours", ...}}
    compare.py --only after_network sample_png
    compare.py --only evaluation_bf16 --run RUN --pairs 101     trained weights and images

Each implementation runs in its own process, because the allocator's state belongs to a process.
One works while the other waits. Keys of a row:
    ratio, spread: the authors' seconds divided by hrseg's, median and range over alternating pairs.
    ours, authors_way: median seconds.
    first_seconds: hrseg's seconds of the first, unmeasured call, which includes compilation.
    memory: increase of peak memory during the work, {"ratio", "ours_mib", "authors_way_mib"}.
    agreement: share of pixels with the same class, for work that returns ids.
    miou: mIoU of each implementation, [hrseg's, the authors'], with --run.
"""

import argparse
import atexit
import copy
import itertools
import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
import torch
from PIL import Image
from rich import get_console
from rich.table import Table
from rounds import ratio
from torch import Tensor, nn

import hrseg
from hrseg.benchmark.measure import PeakMemory, timed
from hrseg.config.loader import load_config
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.data.cache import Cache
from hrseg.data.cache_writer import write_cache
from hrseg.data.dataset import Key, SegmentationDataset
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.synthetic.scene import generate_scene
from hrseg.data.transforms import TrainTransform
from hrseg.inference.evaluator import Evaluator
from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.metrics.confusion import ConfusionMatrix, mean_iou
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import compiled_for_training, inference_network
from hrseg.training.factory import build_data
from hrseg.training.optimizers import sgd
from hrseg.utils.system import keep_memory
from tests.oracles import authors_way

Work = Callable[[], Any]
Pair = tuple[Work, Work]  # ours, the authors' way

CROP, FULL = (512, 1024), (1024, 2048)
SAMPLES = 4  # samples per measurement, because the cost of a crop depends on its scale


def main() -> None:
    """Measure the selected rows, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of each row")
    parser.add_argument("--run", type=Path, help="weights and images of the evaluation rows")
    arguments = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    for key in arguments.only or [key for key in ROWS if key not in COMPILED]:
        run = arguments.run if key.startswith("evaluation") else None
        report[key] = measure(key, arguments.pairs, run)
        print(f"{key}: {json.dumps(report[key])}", flush=True)
        if arguments.json:  # after each row, so that an interrupted run keeps its figures
            arguments.json.write_text(json.dumps(report, indent=1))
    show(report)


def measure(key: str, pairs: int, run: Path | None = None) -> dict[str, Any]:
    """Measure both implementations in turn, after one call each as warm-up."""
    workers = [Worker(key, index, run) for index in (0, 1)]
    first = [worker.work()[0] for worker in workers]
    seconds: tuple[list[float], list[float]] = ([], [])
    results: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(pairs):
        for number in (1, 0):
            duration, result = workers[number].work()
            seconds[number].append(duration)
            results[number].append(result)
    ours_mib, theirs_mib = (worker.peak() for worker in workers)
    return {
        **ratio(seconds[1], seconds[0]),
        "ours": statistics.median(seconds[0]),
        "authors_way": statistics.median(seconds[1]),
        "pairs": pairs,
        "first_seconds": first[0],
        "memory": {
            "ratio": ours_mib / theirs_mib, "ours_mib": ours_mib, "authors_way_mib": theirs_mib
        },
        **(agreement(*results) if results[0][0] is not None else {}),
        **(miou_of(run, *results) if run else {}),
    }  # fmt: skip


class Worker:
    """A process that runs the work of a row on request, by hrseg (0) or the authors' code (1)."""

    def __init__(self, key: str, index: int, run: Path | None) -> None:
        """Start the process."""
        context = get_context("spawn")
        self.pipe, remote = context.Pipe()
        arguments = (remote, key, index, run)
        self.process = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()

    def work(self) -> tuple[float, Any]:
        """Return the seconds of the work, and the ids that it returns, if any."""
        self.pipe.send("work")
        seconds, result = self.pipe.recv()
        return seconds, result

    def peak(self) -> float:
        """Return the increase of peak memory in MiB, and end the process."""
        self.pipe.send("end")
        peak: float = self.pipe.recv()
        self.process.join()
        return peak


def serve(pipe: Connection, key: str, index: int, run: Path | None) -> None:
    """Run the work for each request of the main process."""
    if index == 0:
        keep_memory()  # like hrseg's commands
    work = (trained(run, key) if run else ROWS[key]())[index]
    memory = PeakMemory(torch.device("cpu"))
    while pipe.recv() == "work":
        seconds: list[float] = []
        with timed(seconds):
            result = work()
        ids = isinstance(result, Tensor) and result.dtype == torch.uint8
        pipe.send((seconds[0], result.numpy() if ids else None))
    pipe.send(memory.read()["memory_mib"])


def agreement(ours: Sequence[Any], theirs: Sequence[Any]) -> dict[str, float]:
    """Return the share of pixels with the same class."""
    same = sum(int((a == b).sum()) for a, b in zip(ours, theirs, strict=True))
    return {"agreement": same / sum(ids.size for ids in ours)}


def miou_of(run: Path, *results: Sequence[Any]) -> dict[str, list[float]]:
    """Return the mIoU of each implementation on a run's images, from the second image on."""
    data = build_data(load_config(run / "config.yaml"))
    dataset = data.dataset(data.val_split)
    scores = []
    for preds in results:
        matrix = ConfusionMatrix(data.num_classes)
        for index, pred in enumerate(preds, 1):
            matrix.update(torch.from_numpy(pred), dataset[index % len(dataset)]["mask"])
        scores.append(mean_iou(matrix.compute()))
    return {"miou": scores}


def training(precision: str, compile: bool = False) -> Pair:
    """Training step on two crops of 256x512: forward, loss at full size, backward, SGD."""
    ours = hrseg.create_model("hrnet_w18").train()
    theirs = copy.deepcopy(ours)
    ours = ours.to(memory_format=torch.channels_last)
    outputs = compiled_for_training(ours) if compile else ours.outputs
    step, normalize, loss_of = sgd(ours), Normalize(), CrossEntropy()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.01, 0.9, weight_decay=5e-4)
    image = torch.randint(0, 256, (2, 3, 256, 512), dtype=torch.uint8)
    mask = torch.randint(0, 19, (2, 256, 512))
    normalised = normalize(image).contiguous()

    def hrseg_step() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = outputs(normalize(image))["out"]
        loss: Tensor = loss_of(ours.upsample(logits, mask.shape[-2:]), mask)
        step.zero_grad()
        loss.backward()
        step.step()
        return loss.detach()

    return hrseg_step, lambda: authors_way.training_step(theirs, optimizer, normalised, mask)


def inference(precision: str, compile: bool = False) -> Pair:
    """Inference: logits at head resolution for one image of 512x1024."""
    model = with_random_weights(hrseg.create_model("hrnet_w18").eval())
    network = inference_network(model, precision, compile)
    image = torch.randn(1, 3, *CROP)
    last = image.to(memory_format=torch.channels_last)
    ours = torch.inference_mode()(lambda: network(last))
    return ours, torch.inference_mode()(lambda: model.outputs(image)["out"])


def sampling(cached: bool) -> Pair:
    """Training samples: crops of 512x1024 from PNG files of 2048x1024, or from their cache."""
    root = Path(tempfile.mkdtemp(prefix="hrseg-compare-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    files = [write_pair(root, index) for index in range(4)]
    reader = MaskReader(id_table(19, ignore_ids=[255]), "")
    dataset = SegmentationDataset(files, reader, TrainTransform(CROP, (0.5, 2.1, 0.1), 2048))
    if cached:
        write_cache(root / "cache", root, files, reader)
        dataset.cache = Cache(root / "cache", root, reader)
    cv2.setNumThreads(0)  # as in a data worker
    numbers = itertools.count()

    def ours() -> None:
        for _ in range(SAMPLES):
            number = next(numbers)
            dataset[Key(number % len(files), epoch=number)]

    def theirs() -> None:
        for number in range(SAMPLES):
            authors_way.sample(*files[number % len(files)], CROP)

    return ours, theirs


def after_network() -> Pair:
    """Evaluation after the network: interpolation, argmax and counts of a 2048x1024 image."""
    logits = 4 * torch.randn(1, 19, FULL[0] // 4, FULL[1] // 4)
    last = logits.to(memory_format=torch.channels_last)  # as the network returns them
    image = torch.zeros(1, 3, *FULL)
    truth = torch.randint(0, 19, FULL, dtype=torch.uint8)
    ids = truth.numpy().astype(np.int64)
    evaluator = Evaluator(lambda image: last, lambda image: image, Protocol())

    def ours() -> Tensor:
        matrix = ConfusionMatrix(19)
        matrix.update(evaluator(image).pred, truth)
        return matrix.compute()

    return ours, lambda: authors_way.confusion(logits, ids)


def evaluation(precision: str) -> Pair:
    """Evaluation of a synthetic 2048x1024 scene with six scales and flips, by W18-small-v1."""
    model = with_random_weights(hrseg.create_model("hrnet_w18_small_v1").eval())
    protocol = PROTOCOLS["official_cityscapes"]
    evaluate = Evaluator(inference_network(model, precision), Normalize(), protocol)
    scene = torch.from_numpy(generate_scene(0, 0, FULL)[0]).permute(2, 0, 1)[None]
    return (
        lambda: evaluate(scene).pred,
        lambda: authors_way.evaluate(model, scene, protocol),
    )


def trained(run: Path, key: str) -> Pair:
    """Evaluation of a run's validation images with its weights, six scales and flips."""
    precision = key.removeprefix("evaluation_").removeprefix("fp")
    predictor = hrseg.load(run)
    data = build_data(load_config(run / "config.yaml"))
    dataset = data.dataset(data.val_split)
    protocol = PROTOCOLS["official_cityscapes"].changed(base_size=0)
    model = predictor.model
    assert isinstance(model, Segmenter)
    network = inference_network(model, precision)
    evaluate = Evaluator(network, predictor.normalize, protocol, data.flip_pairs)
    images = (dataset[index % len(dataset)]["image"][None] for index in itertools.count())
    return (
        lambda: evaluate(next(images)).pred,
        lambda: authors_way.evaluate(model, next(images), protocol),
    )


def write_pair(root: Path, index: int) -> tuple[Path, Path]:
    """Write a synthetic 2048x1024 scene with camera noise as a PNG of 4 MB, and its mask."""
    image, mask = root / f"{index}.png", root / f"{index}_mask.png"
    pixels, ids = generate_scene(0, index, FULL)
    noise = np.random.default_rng(index).normal(0, 4, pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(image)
    Image.fromarray(ids).save(mask)
    return image, mask


def with_random_weights(model: Segmenter) -> Segmenter:
    """Fill a model with random weights that keep activations bounded and predict all classes."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(std=fan_in**-0.5, generator=random)
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.4, 0.8, generator=random)
            module.bias.data.normal_(std=0.1, generator=random)
    model.head.last_layer[-1].weight.data *= 6
    return model


def show(report: dict[str, dict[str, Any]]) -> None:
    """Print the table of results."""
    table = Table("work", "ratio", "spread", "ours", "authors' way", "memory")
    for key, row in report.items():
        low, high = row["spread"]
        memory = f"{row['memory']['ratio']:.2f}"
        table.add_row(
            key, f"{row['ratio']:.2f}x", f"{low:.2f} to {high:.2f}",
            f"{row['ours']:.4f} s", f"{row['authors_way']:.4f} s", memory,
        )  # fmt: skip
    get_console().print(table)


ROWS: dict[str, Callable[[], Pair]] = {
    "train_step_fp32": partial(training, "32"),
    "train_step_bf16": partial(training, "bf16"),
    "inference_fp32": partial(inference, "32"),
    "inference_bf16": partial(inference, "bf16"),
    "inference_bf16_compiled": partial(inference, "bf16", compile=True),
    "sample_png": partial(sampling, cached=False),
    "sample_cache": partial(sampling, cached=True),
    "after_network": after_network,
    "evaluation_bf16": partial(evaluation, "bf16"),
    # Additional rows: float32, which hrseg chooses on processors with slow bf16, and compilation.
    "evaluation_fp32": partial(evaluation, "32"),
    "inference_fp32_compiled": partial(inference, "32", compile=True),
    "train_step_fp32_compiled": partial(training, "32", compile=True),
}
COMPILED = ("train_step_fp32_compiled",)  # compiles for minutes, so measured only with --only

if __name__ == "__main__":
    main()
