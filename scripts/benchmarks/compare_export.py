#!/usr/bin/env python3
"""Speed and agreement of exported files, compared with the network in eager mode.

    compare_export.py [hrnet_w18] [512x1024]        one image, alternating runs in one process

The reference is the authors' setup: NCHW, eager, float32, unfolded batch norms. int8 is calibrated
on synthetic scenes, so its agreement is not that of a trained network; `hrseg export --int8`
measures mIoU.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from rounds import interleaved, ratio

import hrseg
from hrseg.config.protocols import Protocol
from hrseg.data.synthetic.scene import generate_scene
from hrseg.export.writers import Form, write
from hrseg.inference.exported_model import open_engine
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

ROUNDS = 7
FILES = {
    "ONNX Runtime float32": (Form("onnx"), "32"),
    "ONNX Runtime int8": (Form("onnx", int8=True), "32"),
    "OpenVINO float32": (Form("openvino"), "32"),
    "OpenVINO bf16": (Form("openvino"), "bf16"),
    "OpenVINO int8": (Form("openvino", int8=True), "32"),
}


def main() -> None:
    """Export the model, run all files in turn, and print medians of the ratios."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "hrnet_w18"
    size = sys.argv[2] if len(sys.argv) > 2 else "512x1024"
    height, width = (int(side) for side in size.split("x"))
    torch.manual_seed(0)
    model = hrseg.create_model(backbone, num_classes=19).eval()
    torch.nn.init.normal_(model.head.last_layer[-1].weight, std=1.0)
    calibrate_norms(model, scenes(height, width, 4))
    image = scenes(height, width, 1, first=100)
    runs: dict[str, Callable[[], torch.Tensor]] = {}
    normalized = Normalize()(image).contiguous()
    runs["the authors' way"] = lambda: model(normalized)
    with tempfile.TemporaryDirectory() as folder:
        for name, (form, precision) in FILES.items():
            engine = exported(model, Path(folder), form, precision, height, width)
            runs[name] = lambda engine=engine: engine(normalized)
        compare(runs)


@torch.inference_mode()
def compare(runs: dict[str, Callable[[], torch.Tensor]]) -> None:
    """Run all functions in turn, and print seconds, ratios and agreement."""
    first, *_ = results = [run() for run in runs.values()]
    seconds, _ = interleaved(runs, ROUNDS)
    reference = next(iter(seconds.values()))
    for (name, times), result in zip(seconds.items(), results, strict=True):
        faster = ratio(reference, times)
        low, high = faster["spread"]
        equal = float((result.argmax(1) == first.argmax(1)).double().mean())
        difference = float((result - first).abs().max() / first.abs().max())
        print(
            f"{name:22} {median(times):6.3f} s   {faster['ratio']:5.2f}x "
            f"({low:.2f} to {high:.2f})   same class {equal:.4%}   "
            f"max difference {difference:.1e}"
        )


def exported(
    model: hrseg.models.Segmenter,
    folder: Path,
    form: Form,
    precision: str,
    height: int,
    width: int,
) -> hrseg.inference.exported_model.Engine:
    """Export the model to a file, and open it."""
    metadata = {
        "architecture": model.architecture,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "protocol": Protocol().to_dict(),
        "export": {"input": form.input, "output": form.output},
    }
    path = folder / f"{form.format}{form.int8}{'.onnx' if form.format == 'onnx' else '.xml'}"
    if not path.is_file():
        images = scenes(height, width, 8) if form.int8 else []
        write(model, path, form, metadata, [np.moveaxis(x.numpy(), 0, 2) for x in images])
    return open_engine(path, precision=precision)


def scenes(height: int, width: int, count: int, first: int = 0) -> torch.Tensor:
    """Return synthetic street scenes, uint8 (count, 3, H, W)."""
    images = [generate_scene(first, i, (192, 384))[0] for i in range(count)]
    small = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return F.interpolate(small, (height, width), mode="bilinear").round().to(torch.uint8)


@torch.inference_mode()
def calibrate_norms(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Set the batch norms' statistics from images, to keep activations bounded."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()(F.interpolate(Normalize()(images), scale_factor=0.5))
    model.eval()


if __name__ == "__main__":
    main()
