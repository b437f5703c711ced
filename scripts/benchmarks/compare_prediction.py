#!/usr/bin/env python3
"""Speed of `hrseg predict` on a folder, compared with a sequential loop in NCHW and float32.

Both read the same images, run the same checkpoint at scale 1, and write a mask and an overlay for
each image. The script prints the ratio of their times with its spread, images per second of each,
and the share of pixels with the same class.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rounds import interleaved, ratio

import hrseg
from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.inference.inputs import find_sources
from hrseg.inference.outputs import OutputOptions
from hrseg.inference.predict_files import predict_files
from hrseg.inference.predictor import Predictor
from hrseg.models import Segmenter, create_model
from hrseg.visualize import indexed, overlay


def main() -> None:
    """Run both implementations in turn, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--precision", default="32", choices=("32", "bf16"))
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    sources = find_sources([str(arguments.images)])
    predictor = hrseg.load(arguments.checkpoint, precision=arguments.precision)
    predictor = predictor.with_protocol("plain")
    content = read_checkpoint(arguments.checkpoint)
    model = create_model(**content["hrseg"]["architecture"])
    load_weights(model, content, purpose="evaluate", origin=arguments.checkpoint)
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        reference, ours = Path(folder, "reference"), Path(folder, "ours")
        paths = [source.path for source in sources]
        functions = {
            "one_by_one": lambda: one_by_one(model, predictor, paths, reference),
            "hrseg": lambda: predict_files(
                predictor, sources, ours, OutputOptions(), arguments.checkpoint
            ),
        }
        seconds, _ = interleaved(functions, arguments.pairs)
        masks = [
            [
                np.array(Image.open(parent / f"{s.name}.png"))
                for parent in (reference, ours / "masks")
            ]
            for s in sources
        ]
    report = {
        **ratio(seconds["one_by_one"], seconds["hrseg"]),
        "images_per_second": {
            name: len(sources) / statistics.median(times) for name, times in seconds.items()
        },
        "agreement": float(np.mean([(first == second).mean() for first, second in masks])),
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


@torch.inference_mode()
def one_by_one(model: Segmenter, predictor: Predictor, paths: list[Path], out: Path) -> None:
    """Read, predict and write image by image, like a simple script around the authors' model."""
    out.mkdir(exist_ok=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for path in paths:
        pixels = np.array(Image.open(path).convert("RGB"))
        image = (torch.from_numpy(pixels).float() / 255 - mean) / std
        logits = model.outputs(image.permute(2, 0, 1)[None].contiguous())["out"]
        size, corners = pixels.shape[:2], model.backbone.align_corners
        logits = F.interpolate(logits, size, mode="bilinear", align_corners=corners)
        mask = logits.argmax(1)[0].numpy().astype(np.uint8)
        indexed(mask, predictor.palette).save(out / f"{path.stem}.png")
        blended = overlay(pixels, mask, predictor.palette)
        Image.fromarray(blended).save(out / f"{path.stem}.jpg", quality=90)


if __name__ == "__main__":
    main()
