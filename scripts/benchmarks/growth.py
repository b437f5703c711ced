#!/usr/bin/env python3
"""Growth of time and memory with the number of pixels and images.

    scripts/benchmarks/growth.py --out growth.png --json growth.json

The images are synthetic street scenes. Each measurement runs in a new process, and each point is
the median of several rounds over all points. Time should grow linearly, memory should be constant.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rounds import interleaved

from hrseg.benchmark.evaluation import evaluation
from hrseg.benchmark.measure import in_process, machine
from hrseg.benchmark.model import train_step
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.training.factory import build_data

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Points = list[tuple[float, float]]
Work = Callable[..., dict[str, Any]]
HEIGHTS = (224, 320, 512, 704, 1024, 1248, 1408)  # widths are twice that: 0.1 to 4 megapixels
CROPS = (128, 192, 256, 352, 448, 512)
IMAGES = (1, 5, 10, 20, 30, 40)


def main() -> None:
    """Measure the four curves, print their linear fits, and plot them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--backbone", default="hrnet_w18_small_v1")
    parser.add_argument("--precision", default="32-true", help="as trainer.precision")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("growth.png"))
    parser.add_argument("--json", type=Path, help="file for points and fits")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        curves = measure(Path(folder), arguments)
    report = {name: {"points": points, **line(points)} for name, points in curves.items()}
    for name, fit in report.items():
        print(f"{name}: slope {fit['slope']:.4g}, intercept {fit['intercept']:.4g}, "
              f"R2 {fit['r2']:.5f}, highest / lowest {fit['ratio']:.3f}")  # fmt: skip
    draw(report, arguments.out)
    if arguments.json:
        import torch

        report["machine"] = machine(torch.device("cpu"))
        arguments.json.write_text(json.dumps(report, indent=1))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Points]:
    """Return the points of each curve by title."""

    def run(work: Work, height: int, images: int, count: int) -> dict[str, Any]:
        config = scenes(folder, arguments.backbone, height, images)
        return in_process(work, config, arguments.precision, count)

    functions = {f"height {height}": partial(run, evaluation, height, 5, 5) for height in HEIGHTS}
    functions |= {f"crop {crop}": partial(run, train_step, crop, 5, 7) for crop in CROPS}
    functions |= {f"images {n}": partial(run, evaluation, 320, max(IMAGES), n) for n in IMAGES}
    _, results = interleaved(functions, arguments.rounds)

    def median(name: str, *parts: str, of: str = "median") -> float:
        return statistics.median(sum(row[part][of] for part in parts) for row in results[name])

    parts = ("network", "after_network")
    peaks = {
        n: statistics.median(row["peak_mib"] for row in results[f"images {n}"]) for n in IMAGES
    }
    return {
        "evaluation: seconds by megapixels": [
            (2 * height**2 / 1e6, median(f"height {height}", *parts)) for height in HEIGHTS
        ],
        "training step: seconds by megapixels": [
            (2 * crop**2 / 1e6, median(f"crop {crop}", "seconds")) for crop in CROPS
        ],
        "evaluation: seconds by images": [
            (n, n * median(f"images {n}", *parts, "reading", of="mean")) for n in IMAGES
        ],
        "evaluation: peak MiB by images": list(peaks.items()),
    }


def scenes(folder: Path, backbone: str, height: int, images: int) -> Config:
    """Generate scenes with a width of twice the height, and return their config."""
    size = f"[{height},{2 * height}]"
    config = load_config(
        "synthetic_tiny",
        [f"data.root={folder}/{height}-{images}", f"data.num_val={images}", "data.num_train=1",
         f"data.image_size={size}", f"data.crop_size={size}", "data.batch_size=1",
         f"model.backbone={backbone}"],
    )  # fmt: skip
    build_data(config).prepare_data()  # in this process, because generation needs memory too
    return config


def line(points: Points) -> dict[str, float]:
    """Return the least-squares line through the points, and its coefficient of determination."""
    x, y = np.array(points).T
    slope, intercept = np.polyfit(x, y, 1)
    residuals = y - (slope * x + intercept)
    total = ((y - y.mean()) ** 2).sum()
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": float(1 - (residuals**2).sum() / total) if total else 1.0,
        "ratio": float(y.max() / y.min()),
    }


def draw(report: dict[str, Any], out: Path) -> None:
    """Plot each curve with its line."""
    figure, axes = plt.subplots(2, 2, figsize=(10, 8))
    for axis, (name, fit) in zip(axes.flat, report.items(), strict=True):
        label(axis, name, fit["points"])
        x = np.array([0, max(point[0] for point in fit["points"])])
        axis.plot(x, fit["slope"] * x + fit["intercept"], color="tab:orange",
                  label=f"slope {fit['slope']:.3g}, R² {fit['r2']:.4f}")  # fmt: skip
        axis.set_ylim(0, 1.05 * axis.get_ylim()[1])
        axis.legend()
    figure.tight_layout()
    figure.savefig(out, dpi=110)
    print(f"plot: {out}")


def label(axis: Any, name: str, points: Sequence[tuple[float, float]]) -> None:
    """Plot the points with a title and labelled axes."""
    title, _, units = name.partition(": ")
    y, _, x = units.partition(" by ")
    axis.plot(*zip(*points, strict=True), "o", color="tab:blue")
    axis.set(title=title, xlabel=x, ylabel=y)


if __name__ == "__main__":
    main()
