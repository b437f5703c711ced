"""Verification of an exported file: logits at many sizes, mIoU on a data set."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich import get_console
from rich.table import Column, Table
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, VerificationError
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.inference.predictor import Predictor, load
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.utils.console import echo, track

Pixels = NDArray[np.uint8]

# (batch, height, width): multiples of 32 and not, even and odd, high and wide.
SHAPES = (
    *((1, 33, 33), (1, 33, 65), (1, 47, 101), (1, 63, 62), (1, 64, 64), (1, 64, 96), (2, 65, 129)),
    *((1, 96, 33), (3, 97, 131), (1, 100, 100), (2, 111, 57), (1, 128, 256), (1, 129, 255)),
    *((4, 130, 70), (1, 160, 320), (1, 199, 203), (1, 256, 256), (1, 257, 383), (2, 320, 192)),
    (1, 512, 1024),
)
MAX_DIFFERENCE = 1e-4  # of the logits, relative to the largest
MIN_AGREEMENT = 0.999  # of the classes of all pixels
MAX_LOSS = {False: 0.001, True: 0.02}  # of mIoU: in float32, in int8


@dataclass(frozen=True)
class Comparison:
    """Images with truth."""

    read: Callable[[int], tuple[Pixels, Pixels]]  # index -> RGB (H, W, 3), train ids (H, W)
    indices: Sequence[int]


def prove(
    predictor: Predictor, candidate: Predictor, int8: bool, comparison: Comparison | None
) -> dict[str, Any]:
    """Compare an exported file with its model, print the tables, and return the figures.

    Differences beyond MAX_DIFFERENCE, MIN_AGREEMENT or MAX_LOSS raise VerificationError. Of a file
    in 8 bits only mIoU decides.
    """
    rows = [_compare(predictor, candidate, shape) for shape in track(SHAPES, len(SHAPES), "shapes")]
    differences = [row["max_difference"] for row in rows if row["max_difference"] is not None]
    proof: dict[str, Any] = {
        "shapes": rows,
        "max_difference": max(differences, default=None),
        "agreement": min(row["agreement"] for row in rows),
        "miou": _compare_miou(predictor, candidate, comparison) if comparison else None,
    }
    _show(proof)
    _judge(proof, int8)
    return proof


def open_candidate(path: Path, metadata: dict[str, Any]) -> Predictor:
    """Return the predictor of the new file, in float32."""
    if is_exported(path):
        return Predictor(open_engine(path), metadata)
    if path.suffix == ".safetensors":
        return load(path)
    # A .pt2 file is code: hrseg loads only one that it has just written.
    program = torch.export.load(path).module()
    run = lambda image: program(torch.from_numpy(image)).numpy()  # noqa: E731
    return Predictor(Engine(path, metadata, run), metadata)


@torch.inference_mode()
def _compare(
    predictor: Predictor, candidate: Predictor, shape: tuple[int, int, int]
) -> dict[str, Any]:
    image = predictor.normalize(_picture(shape))
    expected, logits = predictor.model(image), candidate.model(image)
    if expected.shape != logits.shape:
        raise VerificationError(
            f"the exported file gives {tuple(logits.shape)} for {shape}, expected "
            f"{tuple(expected.shape)}. It was not kept."
        )
    ids = isinstance(candidate.model, Engine) and candidate.model.interface["output"] == "ids"
    difference = float((expected - logits).abs().max() / expected.abs().max())
    return {
        "shape": list(shape),
        "max_difference": None if ids else difference,
        "agreement": float((expected.argmax(1) == logits.argmax(1)).double().mean()),
    }


def _picture(shape: tuple[int, int, int]) -> Tensor:
    """Return RGB bytes (B, 3, H, W): soft spots and noise, the same in each call."""
    batch, height, width = shape
    generator = torch.Generator().manual_seed(height * width)
    coarse = torch.rand(batch, 3, height // 16 + 2, width // 16 + 2, generator=generator)
    soft = F.interpolate(coarse, (height, width), mode="bilinear")
    noise = torch.rand(batch, 3, height, width, generator=generator)
    return (255 * (0.8 * soft + 0.2 * noise)).to(torch.uint8)


def _compare_miou(
    predictor: Predictor, candidate: Predictor, comparison: Comparison
) -> dict[str, Any]:
    protocol = _possible(candidate, predictor.protocol)
    both = [each.with_protocol(**protocol.to_dict()) for each in (predictor, candidate)]
    matrices = [ConfusionMatrix(len(predictor.class_names)) for _ in both]
    equal = total = 0
    seconds = [0.0, 0.0]
    for index in track(comparison.indices, len(comparison.indices), "images"):
        image, mask = comparison.read(index)
        preds = []
        for i, each in enumerate(both):
            began = time.perf_counter()
            preds.append(torch.from_numpy(each.segment(image).mask))
            seconds[i] += time.perf_counter() - began
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


def _possible(candidate: Predictor, protocol: Protocol) -> Protocol:
    """Return the protocol, reduced to one unscaled view if the file cannot do it."""
    try:
        candidate.with_protocol(**protocol.to_dict()).check()
    except ConfigError:
        return protocol.changed(scales=(1.0,), base_size=0, flip=False)
    if isinstance(candidate.model, Engine) and candidate.model.interface["input"] == "uint8":
        return protocol.changed(base_size=0)
    return protocol


def _judge(proof: dict[str, Any], int8: bool) -> None:
    faults = []
    difference, miou = proof["max_difference"], proof["miou"]
    if not int8 and difference is not None and not difference <= MAX_DIFFERENCE:
        faults.append(f"logits differ by {difference:.1e}, at most {MAX_DIFFERENCE:.0e} allowed")
    if not int8 and not proof["agreement"] >= MIN_AGREEMENT:
        agreement = f"{proof['agreement']:.2%} of the pixels of a shape"
        faults.append(f"the class is the same on {agreement}, at least {MIN_AGREEMENT:.1%} needed")
    before, after = ((miou[key] or 0.0) for key in ("original", "exported")) if miou else (0, 0)
    if abs(before - after) > MAX_LOSS[int8]:
        change = f"{100 * before:.2f} to {100 * after:.2f}"
        faults.append(f"mIoU went from {change}, {100 * MAX_LOSS[int8]:g} points are allowed")
    if faults:
        raise VerificationError(
            f"the exported file is not the model: {'; '.join(faults)}.\n"
            "It was not kept. "
            + ("Export without --int8." if int8 else "Try another --format; please report this.")
        )


def _show(proof: dict[str, Any]) -> None:
    table = _table("shape", "max difference", "same class")
    for row in proof["shapes"]:
        shape, difference = "x".join(map(str, row["shape"])), row["max_difference"]
        digits = "-" if difference is None else f"{difference:.1e}"
        table.add_row(shape, digits, f"{row['agreement']:.4%}")
    echo("exported file against the model:")
    get_console().print(table)
    miou = proof["miou"]
    if not miou:
        return
    agreement = f"same class on {miou['agreement']:.4%} of the pixels"
    echo(f"{miou['images']} images, {agreement}; {Protocol(**miou['protocol'])}")
    table = _table("IoU", "original", "exported", "change")
    for row in miou["classes"]:
        table.add_row(row["name"], *_change(row))
    table.add_section()
    table.add_row("mean", *_change(miou), style="bold")
    get_console().print(table)


def _table(first: str, *others: str) -> Table:
    return Table(first, *(Column(name, justify="right") for name in others))


def _change(row: dict[str, Any]) -> list[str]:
    before, after = row["original"], row["exported"]
    if before is None or after is None:
        return ["-", "-", ""]
    return [f"{100 * before:.2f}", f"{100 * after:.2f}", f"{100 * (after - before):+.2f}"]
