#!/usr/bin/env python3
"""Multi-scale and flip evaluation: hrseg against the authors' way, on the same windows.

The authors' way runs one window after the other, an image and its mirror image apart, NCHW, and
brings the scores of every window to full size with all classes. Both ways evaluate the same drawn
street scenes in turns, in float32; the script prints the ratio of their times and the share of
pixels on which they agree. `--memory` runs hrseg alone, so that the peak is its own.
"""

import argparse
import json
import resource
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hrseg
from hrseg.data.scene import generate_scene
from hrseg.geometry import Windows, find_windows, prepare, scaled_size
from hrseg.inference import Evaluator
from hrseg.models import Segmenter
from hrseg.models.fold import fold
from hrseg.models.normalize import Normalize
from hrseg.protocols import PROTOCOLS, Protocol


def main() -> None:
    """Time both ways image by image, or measure the memory of one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="hrnet_w18_small_v2")
    parser.add_argument("--protocol", default="official_cityscapes", choices=PROTOCOLS)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4, help="windows and mirror images at once")
    parser.add_argument("--memory", action="store_true", help="hrseg alone, and its peak memory")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    protocol = PROTOCOLS[arguments.protocol]
    model = drawn_weights(hrseg.create_model(arguments.backbone).eval())
    folded = fold(model).to(memory_format=torch.channels_last)
    ours = Evaluator(
        lambda image: folded.outputs(image)["out"], Normalize(), protocol, batch=arguments.batch
    )
    scenes = (
        torch.from_numpy(generate_scene(0, index, tuple(arguments.size))[0]).permute(2, 0, 1)[None]
        for index in range(arguments.images)
    )
    report = measure(ours, scenes) if arguments.memory else compare(ours, model, scenes)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def compare(ours: Evaluator, model: Segmenter, scenes: Iterable[Tensor]) -> dict[str, object]:
    """Evaluate each scene both ways, in turns."""
    times: list[tuple[float, float]] = []
    agreed = total = 0
    for scene in scenes:
        start = time.perf_counter()
        theirs = authors_way(model, scene, ours.protocol)
        middle = time.perf_counter()
        pred = ours(scene).pred
        times.append((middle - start, time.perf_counter() - middle))
        agreed += int((pred == theirs).sum())
        total += pred.numel()
        print(f"authors' way {times[-1][0]:.1f} s, hrseg {times[-1][1]:.1f} s", flush=True)
    ratios = sorted(theirs / ours for theirs, ours in times)
    median = ratios[len(ratios) // 2]
    print(f"hrseg is {median:.2f}x as fast (median; {ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"same class on {100 * agreed / total:.4f} % of {total} pixels")
    return {"ratio": median, "spread": [ratios[0], ratios[-1]], "agreement": agreed / total}


def measure(ours: Evaluator, scenes: Iterable[Tensor]) -> dict[str, object]:
    """Evaluate the scenes with hrseg alone; print the peak memory after each."""
    peaks = []
    for scene in scenes:
        ours(scene)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(f"peak memory after {len(peaks)} images: {peaks[-1]:.0f} MiB", flush=True)
    return {"peak_mib": peaks}


@torch.inference_mode()
def authors_way(model: Segmenter, scene: Tensor, protocol: Protocol) -> Tensor:
    """Return ids (H, W) as lib/datasets/base_dataset.py of the authors finds them."""
    prepared, content = prepare(scene, protocol)
    image = Normalize()(prepared).contiguous()
    shape, size = image.shape[-2:], scene.shape[-2:]
    final = torch.zeros(1, model.architecture["num_classes"], *shape)
    for scale in protocol.scales:
        scaled = bilinear(image, scaled_size(shape, scale, protocol))
        height, width = scaled.shape[-2:]
        windows = find_windows((height, width), scale, protocol) or Windows([0], [0], height, width)
        scores = torch.zeros(1, final.shape[1], height, width)
        count = torch.zeros(1, 1, height, width)
        for y in windows.rows:
            for x in windows.columns:
                window = scaled[..., y : y + windows.height, x : x + windows.width].contiguous()
                inside = (..., slice(y, y + windows.height), slice(x, x + windows.width))
                scores[inside] += window_scores(model, window, protocol.flip)
                count[inside] += 1
        final += bilinear(scores / count, shape)
    final = final[..., : content[0], : content[1]]
    return bilinear(final, size).argmax(1)[0].to(torch.uint8)


def window_scores(model: Segmenter, window: Tensor, flip: bool) -> Tensor:
    """Return exp(logits) of one window, the mirror image run after the image."""
    logits = bilinear(model.outputs(window)["out"], window.shape[-2:])
    if flip:
        mirrored = bilinear(model.outputs(window.flip(-1))["out"], window.shape[-2:])
        logits = (logits + mirrored.flip(-1)) * 0.5
    return logits.exp()


def bilinear(x: Tensor, size: Sequence[int]) -> Tensor:
    """Interpolate as the authors do, corners not aligned."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


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


if __name__ == "__main__":
    main()
