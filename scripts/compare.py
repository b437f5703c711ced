#!/usr/bin/env python3
"""hrseg against the authors' way: the same work in one process, in turns; ratios with spread.

    scripts/compare.py                                  all rows, as a table
    scripts/compare.py --json F --pairs 7               and {key: {"ratio", "spread", "ours", ...}}
    scripts/compare.py --only after_network sample_png
    scripts/compare.py --only evaluation_bf16 --run RUN --pairs 101     trained weights and images

A ratio is the median, over alternating pairs, of the authors' seconds by ours; "ours" and
"authors_way" are medians in seconds. "memory" has the peak of each way, in a process of its own,
on top of what it holds before the work: {"ratio", "ours_mib", "authors_way_mib"}. What is compiled
is compiled before the clock starts; "first_seconds" says how long the first time took. With a run
the evaluation rows take its weights and its validation images, and say on how many pixels both
ways agree ("agreement") and the mIoU of each ("miou": [ours, the authors' way]).
"""

import argparse
import atexit
import copy
import ctypes
import dataclasses
import itertools
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import authors_way
import cv2
import numpy as np
import torch
from PIL import Image
from rich import get_console
from rich.table import Table
from torch import Tensor, nn

import hrseg
from hrseg.allocator import keep_memory
from hrseg.build import build_data
from hrseg.data.base import MaskReader, id_table
from hrseg.data.cache import Cache, write_cache
from hrseg.data.dataset import Key, SegmentationDataset
from hrseg.data.scene import generate_scene
from hrseg.data.transforms import TrainTransform
from hrseg.inference import Evaluator
from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.measure import PeakMemory, in_process
from hrseg.metrics import ConfusionMatrix, mean_iou
from hrseg.models import Segmenter
from hrseg.models.compiled import compiled_for_inference, compiled_for_training
from hrseg.models.fold import fold
from hrseg.models.normalize import Normalize
from hrseg.optim import sgd
from hrseg.protocols import PROTOCOLS, Protocol
from hrseg.records import open_evaluation

Work = Callable[[], Any]
Pair = tuple[Work, Work]  # ours, the authors' way

CROP, FULL = (512, 1024), (1024, 2048)
SAMPLES = 4  # in each measurement, since a crop's cost depends on its scale


def main() -> None:
    """Measure the rows that are asked for; print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", nargs="+", choices=ROWS, metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--pairs", type=int, default=5, help="alternating pairs of each row")
    parser.add_argument("--run", type=Path, help="weights and images of the evaluation rows")
    arguments = parser.parse_args()
    report: dict[str, dict[str, Any]] = {}
    for key in arguments.only or [key for key in ROWS if key not in COMPILED]:
        if arguments.run and key.startswith("evaluation"):
            precision = key.removeprefix("evaluation_").removeprefix("fp")
            report[key] = trained_evaluation(arguments.run, precision, arguments.pairs)
        else:
            report[key] = measure(ROWS[key](), arguments.pairs)
        if key in MEMORY:
            ours, theirs = (in_process(peak, key, way) for way in (0, 1))
            mib = {"ours_mib": ours, "authors_way_mib": theirs}
            report[key]["memory"] = {"ratio": ours / theirs, **mib}
        print(f"{key}: {json.dumps(report[key])}", flush=True)
        if arguments.json:  # after each row: a run that is stopped keeps what it measured
            arguments.json.write_text(json.dumps(report, indent=1))
    show(report)


def measure(pair: Pair, pairs: int) -> dict[str, Any]:
    """Run both ways in turns, once to warm up."""
    seconds: tuple[list[float], list[float]] = ([], [])
    first = [timed(work) for work in pair]
    for _ in range(pairs):
        for way in (1, 0):
            prepare_memory(way)
            seconds[way].append(timed(pair[way]))
    ratios = [theirs / ours for ours, theirs in zip(*seconds, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "ours": statistics.median(seconds[0]),
        "authors_way": statistics.median(seconds[1]),
        "pairs": pairs,
        "first_seconds": first[0],
    }


def prepare_memory(way: int) -> None:
    """Treat freed memory as hrseg's commands do (0), or as glibc does by itself (1)."""
    libc = ctypes.CDLL(None)
    if way == 0:
        keep_memory()
    elif hasattr(libc, "mallopt"):
        libc.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD: the 32 MiB that glibc comes to by itself
        libc.mallopt(-1, 2**26)  # M_TRIM_THRESHOLD: twice as much
        libc.malloc_trim(0)


def timed(work: Work) -> float:
    """Return the seconds that it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def training(precision: str, compile: bool = False) -> Pair:
    """One step on two crops of 256x512: forward, loss at full size, backward, SGD."""
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
    """Logits at head resolution of one image of 512x1024."""
    model = drawn_weights(hrseg.create_model("hrnet_w18").eval())
    folded = fold(model).to(memory_format=torch.channels_last)
    outputs = compiled_for_inference(folded) if compile else folded.outputs
    image = torch.randn(1, 3, *CROP)
    last = image.to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def ours() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return outputs(last)["out"]

    return ours, torch.inference_mode()(lambda: model.outputs(image)["out"])


def sampling(cached: bool) -> Pair:
    """A training crop of 512x1024 from a PNG of 2048x1024, or from the cache of it."""
    root = Path(tempfile.mkdtemp(prefix="hrseg-compare-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    files = [drawn_pair(root, index) for index in range(4)]
    reader = MaskReader(id_table(19, ignore_ids=[255]), "")
    dataset = SegmentationDataset(files, reader, TrainTransform(CROP, (0.5, 2.1, 0.1), 2048))
    if cached:
        write_cache(root / "cache", root, files, reader)
        dataset.cache = Cache(root / "cache", root, reader)
    cv2.setNumThreads(0)  # as in a worker
    turn = itertools.count()

    def ours() -> None:
        for _ in range(SAMPLES):
            number = next(turn)
            dataset[Key(number % len(files), epoch=number)]

    def theirs() -> None:
        for number in range(SAMPLES):
            authors_way.sample(*files[number % len(files)], CROP)

    return ours, theirs


def after_network() -> Pair:
    """From logits of a 2048x1024 image to counts: interpolation, argmax, confusion matrix."""
    logits = 4 * torch.randn(1, 19, FULL[0] // 4, FULL[1] // 4)
    last = logits.to(memory_format=torch.channels_last)  # as the network leaves them
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
    """Six scales and flips of a drawn 2048x1024 scene, W18-small-v1."""
    model = drawn_weights(hrseg.create_model("hrnet_w18_small_v1").eval())
    protocol = PROTOCOLS["official_cityscapes"]
    evaluate = evaluator_of(model, Normalize(), protocol, (), precision)
    scene = torch.from_numpy(generate_scene(0, 0, FULL)[0]).permute(2, 0, 1)[None]
    return (
        lambda: evaluate(scene).pred,
        lambda: authors_way.evaluate(model, scene, protocol),
    )


def trained_evaluation(run: Path, precision: str, images: int) -> dict[str, Any]:
    """Both ways on the validation images of a run, by its weights: ratio, agreement, mIoU."""
    evaluation = open_evaluation(run)
    predictor = hrseg.load(run)
    data = build_data(evaluation.config)
    dataset = data.dataset(data.val_split)
    protocol = dataclasses.replace(PROTOCOLS["official_cityscapes"], base_size=0)
    evaluate = evaluator_of(
        predictor.model, predictor.normalize, protocol, data.flip_pairs, precision
    )
    both: tuple[Callable[[Tensor], Tensor], ...] = (
        lambda image: evaluate(image).pred,
        lambda image: authors_way.evaluate(predictor.model, image, protocol),
    )
    seconds: tuple[list[float], list[float]] = ([], [])
    matrices = [ConfusionMatrix(data.num_classes) for _ in seconds]
    agreed = total = 0
    for index in range(min(images, len(dataset))):
        item = dataset[index]
        image, mask = item["image"][None], item["mask"]
        preds = [torch.empty(0), torch.empty(0)]
        for way in (1, 0):
            prepare_memory(way)
            began = time.perf_counter()
            preds[way] = both[way](image)
            seconds[way].append(time.perf_counter() - began)
        ours, theirs = preds
        for matrix, pred in zip(matrices, (ours, theirs), strict=True):
            matrix.update(pred, mask)
        agreed += int((ours == theirs).sum())
        total += ours.numel()
    ratios = [theirs / ours for ours, theirs in zip(*seconds, strict=True)]
    return {
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
        "ours": statistics.median(seconds[0]),
        "authors_way": statistics.median(seconds[1]),
        "pairs": len(ratios),
        "agreement": agreed / total,
        "miou": [mean_iou(matrix.compute()) for matrix in matrices],
    }


def evaluator_of(
    model: Segmenter,
    normalize: Normalize,
    protocol: Protocol,
    flip_pairs: Sequence[tuple[int, int]],
    precision: str,
) -> Evaluator:
    """Return what hrseg evaluates with."""
    folded = fold(model).to(memory_format=torch.channels_last)

    def logits(image: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return folded.outputs(image)["out"]

    return Evaluator(logits, normalize, protocol, flip_pairs, model.align_corners)


def drawn_pair(root: Path, index: int) -> tuple[Path, Path]:
    """Write a drawn scene of 2048x1024 with the noise of a camera: a PNG of 4 MB, and its mask."""
    image, mask = root / f"{index}.png", root / f"{index}_mask.png"
    pixels, ids = generate_scene(0, index, FULL)
    noise = np.random.default_rng(index).normal(0, 4, pixels.shape)
    Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8)).save(image)
    Image.fromarray(ids).save(mask)
    return image, mask


def drawn_weights(model: Segmenter) -> Segmenter:
    """Fill a model with weights that keep activations in range, and classes apart."""
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


def peak(key: str, way: int) -> float:
    """Return the MiB that one way (0 ours, 1 the authors') takes on top of what is held before."""
    work = ROWS[key]()[way]
    prepare_memory(way)
    memory = PeakMemory(torch.device("cpu"))
    for _ in range(2):
        work()
    taken = memory.read()["memory_mib"]
    assert taken is not None, "the peak is read from /proc"
    return taken


def show(report: dict[str, dict[str, Any]]) -> None:
    """Print a row for each figure."""
    table = Table("work", "ratio", "spread", "ours", "authors' way", "memory")
    for key, row in report.items():
        low, high = row["spread"]
        memory = f"{row['memory']['ratio']:.2f}" if "memory" in row else "-"
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
    # What is no row of the table: the precision that hrseg chooses on a processor whose
    # bf16 is slower, and the network compiled.
    "evaluation_fp32": partial(evaluation, "32"),
    "inference_fp32_compiled": partial(inference, "32", compile=True),
    "train_step_fp32_compiled": partial(training, "32", compile=True),
}
MEMORY = ("train_step_fp32", "train_step_bf16", "after_network")
COMPILED = ("train_step_fp32_compiled",)  # minutes to compile: only where it is asked for

if __name__ == "__main__":
    main()
