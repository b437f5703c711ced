#!/usr/bin/env python3
"""Predicting a folder: `hrseg predict` against one image after the other in NCHW and float32.

Both ways read the same images, run the same checkpoint at scale 1, and write a mask and an overlay
of each, in turns. The script prints the ratio of their times with its spread, how many images per
second each does, and the share of pixels on which they agree.
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

import hrseg
from hrseg.benchmark.measure import by_turns, ratio
from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.inference.inputs import find_sources
from hrseg.inference.outputs import OutputOptions
from hrseg.inference.predict_files import predict_files
from hrseg.inference.predictor import Predictor
from hrseg.models import Segmenter, create_model
from hrseg.visualize import indexed, overlay


def main() -> None:
    """Run both ways in turns and print the ratio."""
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
        theirs, ours = Path(folder, "theirs"), Path(folder, "ours")
        paths = [source.path for source in sources]
        ways = {
            "one_by_one": lambda: one_by_one(model, predictor, paths, theirs),
            "hrseg": lambda: predict_files(
                predictor, sources, ours, OutputOptions(), arguments.checkpoint
            ),
        }
        seconds, _ = by_turns(ways, arguments.pairs)
        agreed = [
            (np.array(Image.open(theirs / f"{s.name}.png")) == np.array(Image.open(path))).mean()
            for s in sources
            for path in [ours / "masks" / f"{s.name}.png"]
        ]
    report = {
        **ratio(seconds["one_by_one"], seconds["hrseg"]),
        "images_per_second": {
            way: len(sources) / statistics.median(column) for way, column in seconds.items()
        },
        "agreement": float(np.mean(agreed)),
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


@torch.inference_mode()
def one_by_one(model: Segmenter, predictor: Predictor, paths: list[Path], out: Path) -> None:
    """Read, predict, write, image by image, as a script around the authors' model would."""
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
        drawn = overlay(pixels, mask, predictor.palette)
        Image.fromarray(drawn).save(out / f"{path.stem}.jpg", quality=90)


if __name__ == "__main__":
    main()
