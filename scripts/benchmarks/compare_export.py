#!/usr/bin/env python3
"""Speed and agreement of exported files against the network run the authors' way.

`compare_export.py [hrnet_w18] [512x1024]`: one image, alternating runs in one process. The authors'
way: NCHW, eager, float32, batch norms apart. int8 is fitted to drawn scenes and its
agreement says little of a trained network: `hrseg export --int8` measures its mIoU.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F

import hrseg
from hrseg.benchmark.measure import interleaved, ratio
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
    """Write the files, run them by turns, print medians of the ratios."""
    backbone = sys.argv[1] if len(sys.argv) > 1 else "hrnet_w18"
    size = sys.argv[2] if len(sys.argv) > 2 else "512x1024"
    height, width = (int(side) for side in size.split("x"))
    torch.manual_seed(0)
    model = hrseg.create_model(backbone, num_classes=19).eval()
    torch.nn.init.normal_(model.head.last_layer[-1].weight, std=1.0)
    settle(model, scenes(height, width, 4))
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
    """Run everything by turns, and print seconds, ratios and agreement."""
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
    """Write the model as a file, and open it."""
    facts = {
        "architecture": model.architecture,
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "protocol": Protocol().to_dict(),
        "export": {"input": form.input, "output": form.output},
    }
    path = folder / f"{form.format}{form.int8}{'.onnx' if form.format == 'onnx' else '.xml'}"
    if not path.is_file():
        drawn = scenes(height, width, 8) if form.int8 else []
        write(model, path, form, facts, [np.moveaxis(x.numpy(), 0, 2) for x in drawn])
    return open_engine(path, precision=precision)


def scenes(height: int, width: int, count: int, first: int = 0) -> torch.Tensor:
    """Return drawn street scenes, uint8 (count, 3, H, W)."""
    drawn = [generate_scene(first, i, (192, 384))[0] for i in range(count)]
    small = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float()
    return F.interpolate(small, (height, width), mode="bilinear").round().to(torch.uint8)


@torch.inference_mode()
def settle(model: torch.nn.Module, images: torch.Tensor) -> None:
    """Give the batch norms the statistics of images: at random ones activations vanish or grow."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    model.train()(F.interpolate(Normalize()(images), scale_factor=0.5))
    model.eval()


if __name__ == "__main__":
    main()
