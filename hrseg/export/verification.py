"""Verification of an exported file: logits at many image sizes, and mIoU on a data set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich import get_console
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, VerificationError
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.inference.predictor import Predictor, load
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.utils.channels import Channels, Pixels
from hrseg.utils.console import echo, number_table, track
from hrseg.utils.text import percent

# (batch, height, width): multiples of 32 and other sizes, even and odd, portrait and landscape.
# The first three have the ends of all ranges. TensorRT builds an engine when a range grows.
SHAPES = (
    *((1, 33, 33), (1, 512, 1024), (4, 130, 70)),
    *((1, 33, 65), (1, 47, 101), (1, 63, 62), (1, 64, 64), (1, 64, 96), (2, 65, 129), (1, 96, 33)),
    *((3, 97, 131), (1, 100, 100), (2, 111, 57), (1, 128, 256), (1, 129, 255), (1, 160, 320)),
    *((1, 199, 203), (1, 256, 256), (1, 257, 383), (2, 320, 192)),
)
MAX_DIFFERENCE = 1e-4  # maximum difference of the logits, relative to the largest logit
MIN_AGREEMENT = 0.999  # minimum share of pixels with the same class
MAX_LOSS = {False: 0.001, True: 0.02}  # maximum change of mIoU (0..1), by int8


@dataclass(frozen=True)
class Comparison:
    """Labelled images for mIoU.

    Attributes:
        read: index -> image (H, W, N), train ids (H, W).
        indices: indices of the images to compare.
    """

    read: Callable[[int], tuple[Pixels, Pixels]]
    indices: Sequence[int]


def verify(
    predictor: Predictor, candidate: Predictor, int8: bool, comparison: Comparison | None
) -> dict[str, Any]:
    """Compare an exported file with its model, print the tables, and return the figures.

    Args:
        predictor: the model.
        candidate: the exported file.
        int8: whether the file is quantised. Only MAX_LOSS applies to quantised files.
        comparison: labelled images for mIoU.

    Raises:
        VerificationError: if a figure exceeds MAX_DIFFERENCE, MIN_AGREEMENT or MAX_LOSS.
    """
    rows = [_compare(predictor, candidate, shape) for shape in track(SHAPES, len(SHAPES), "shapes")]
    differences = [row["max_difference"] for row in rows if row["max_difference"] is not None]
    proof: dict[str, Any] = {
        "device": candidate.device,
        "shapes": rows,
        "max_difference": max(differences, default=None),
        "agreement": min(row["agreement"] for row in rows),
        "miou": _compare_miou(predictor, candidate, comparison) if comparison else None,
    }
    _show(proof)
    _check(proof, int8)
    return proof


def open_candidate(path: Path, metadata: dict[str, Any], device: str = "cpu") -> Predictor:
    """Return a float32 predictor for a newly exported file; `device` is that of `.onnx` files."""
    if is_exported(path):
        return Predictor(open_engine(path, device), metadata, device)
    if path.suffix == ".safetensors":
        return load(path)
    # A .pt2 file contains code. It is loaded only here, directly after hrseg wrote it.
    program = torch.export.load(path).module()
    run = lambda image: program(torch.from_numpy(image)).numpy()  # noqa: E731
    return Predictor(Engine(path, metadata, run), metadata)


@torch.inference_mode()
def _compare(
    predictor: Predictor, candidate: Predictor, shape: tuple[int, int, int]
) -> dict[str, Any]:
    image = predictor.normalize(_random_image(shape, predictor.channels))
    expected, logits = predictor.model(image), candidate.model(image)
    if expected.shape != logits.shape:
        raise VerificationError(
            f"The exported file gives logits of shape {tuple(logits.shape)} for an input {shape}.\n"
            f"Expected: {tuple(expected.shape)}. The file was not kept."
        )
    ids = isinstance(candidate.model, Engine) and candidate.model.interface["output"] == "ids"
    difference = float((expected - logits).abs().max() / expected.abs().max())
    return {
        "shape": list(shape),
        "max_difference": None if ids else difference,
        "agreement": float((expected.argmax(1) == logits.argmax(1)).double().mean()),
    }


def _random_image(shape: tuple[int, int, int], channels: Channels | None) -> Tensor:
    """Return reproducible images (B, N, H, W) with smooth colours and noise, uint8 or uint16."""
    batch, height, width = shape
    count = channels.count if channels else 3
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(batch, count, height // 16 + 2, width // 16 + 2, generator=generator)
    smooth = F.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.rand(batch, count, height, width, generator=generator)
    values = 0.8 * smooth + 0.2 * noise
    if channels is None:
        return (255 * values).to(torch.uint8)
    low, high = torch.tensor(channels.limits).T[..., None, None]
    largest = 255 if channels.dtype == "uint8" else 65535
    dtype: torch.dtype = getattr(torch, channels.dtype)
    integers: Tensor = (low + (high - low) * values).clamp(0, largest).to(dtype)
    return integers


def _compare_miou(
    predictor: Predictor, candidate: Predictor, comparison: Comparison
) -> dict[str, Any]:
    protocol = _supported_protocol(candidate, predictor.protocol)
    models = [model.with_protocol(**protocol.to_dict()) for model in (predictor, candidate)]
    matrices = [ConfusionMatrix(len(predictor.class_names)) for _ in models]
    equal = total = 0
    seconds = [0.0, 0.0]
    for index in track(comparison.indices, len(comparison.indices), "images"):
        image, mask = comparison.read(index)
        preds = []
        for i, model in enumerate(models):
            start = time.perf_counter()
            preds.append(torch.from_numpy(model.segment(image).mask))
            seconds[i] += time.perf_counter() - start
            matrices[i].update(preds[i], torch.from_numpy(mask))
        equal += int((preds[0] == preds[1]).sum())
        total += preds[0].numel()
    original, exported = (
        summarize(matrix.compute(), predictor.class_names, protocol.absent_classes)
        for matrix in matrices
    )
    return {
        "images": len(comparison.indices),
        "protocol": protocol.to_dict(),
        "agreement": equal / max(1, total),
        "original": original["miou"],
        "exported": exported["miou"],
        "seconds": {"original": seconds[0], "exported": seconds[1]},
        "classes": [
            {"name": a["name"], "original": a["iou"], "exported": b["iou"]}
            for a, b in zip(original["classes"], exported["classes"], strict=True)
        ],
    }


def _supported_protocol(candidate: Predictor, protocol: Protocol) -> Protocol:
    """Return the protocol, reduced to one unscaled view if the file does not support it."""
    try:
        candidate.with_protocol(**protocol.to_dict()).check()
    except ConfigError:
        return protocol.changed(scales=(1.0,), base_size=0, flip=False)
    if isinstance(candidate.model, Engine) and candidate.model.has_raw_input:
        return protocol.changed(base_size=0)
    return protocol


def _check(proof: dict[str, Any], int8: bool) -> None:
    problems, limits = [], []
    difference, miou = proof["max_difference"], proof["miou"]
    if not int8 and difference is not None and not difference <= MAX_DIFFERENCE:
        problems.append(f"logits differ by {difference:.1e}")
        limits.append(f"a difference of at most {MAX_DIFFERENCE:.0e}")
    if not int8 and not proof["agreement"] >= MIN_AGREEMENT:
        problems.append(f"{proof['agreement']:.2%} of the pixels of a shape have the same class")
        limits.append(f"at least {MIN_AGREEMENT:.1%} of the pixels")
    before, after = ((miou[key] or 0.0) for key in ("original", "exported")) if miou else (0, 0)
    if abs(before - after) > MAX_LOSS[int8]:
        problems.append(f"mIoU changed from {100 * before:.2f} to {100 * after:.2f}")
        limits.append(f"a change of at most {100 * MAX_LOSS[int8]:g} points")
    if problems:
        fix = "export without --int8" if int8 else "try another --format, and report this error"
        raise VerificationError(
            f"The exported file differs from the model and was not kept: {', '.join(problems)}.\n"
            f"Expected: {', '.join(limits)}.\nFix: {fix}."
        )


def _show(proof: dict[str, Any]) -> None:
    table = number_table("shape", "max difference", "same class")
    for row in proof["shapes"]:
        shape, difference = "x".join(map(str, row["shape"])), row["max_difference"]
        digits = "-" if difference is None else f"{difference:.1e}"
        table.add_row(shape, digits, f"{row['agreement']:.4%}")
    echo(f"exported file on the device {proof['device']} compared with the model:")
    get_console().print(table)
    miou = proof["miou"]
    if not miou:
        return
    agreement = f"same class on {miou['agreement']:.4%} of the pixels"
    echo(f"{miou['images']} images, {agreement}, {Protocol(**miou['protocol'])}")
    table = number_table("IoU", "original", "exported", "change")
    for row in miou["classes"]:
        table.add_row(row["name"], *_change(row))
    table.add_section()
    table.add_row("mean", *_change(miou), style="bold")
    get_console().print(table)


def _change(row: dict[str, Any]) -> list[str]:
    before, after = row["original"], row["exported"]
    change = "" if before is None or after is None else f"{100 * (after - before):+.2f}"
    return [percent(before), percent(after), change]
