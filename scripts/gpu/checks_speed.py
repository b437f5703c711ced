"""Speed of training against the authors' way, and the data loading rate that it needs."""

import gc
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from checks_golden import use_tf32
from job import Figures, Job, require

from hrseg.benchmark.data import MARGIN, loading_rate, sample_seconds
from hrseg.benchmark.measure import PeakMemory, has_enough_steps, spread, timed
from hrseg.benchmark.model import train_step
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.synthetic.canvas import CLASS_NAMES
from hrseg.data.synthetic.scene import generate_scene
from hrseg.models import create_model
from hrseg.training.factory import build_data
from hrseg.training.loggers import quieten
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.system import processors
from tests.oracles import authors_way

CROPS = {"hrnet_w18": 12, "hrnet_w48": 8}  # crops per step; halved until they fit
SIDES = {"bf16": "hrseg, bf16", "32": "hrseg, float32", "authors": "authors' way, float32"}


def training_speed(job: Job) -> Figures:
    """Measure training steps of hrseg and of the authors' way on random crops."""
    use_tf32(True)  # for both implementations; the authors' recipe also enables cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    quieten()
    size = (64, 128) if job.small else (512, 1024)
    figures: Figures = {"size": size, "tf32": True, "cudnn_benchmark": True, "rows": []}
    for backbone, crops in {"hrnet_w18_small_v1": 2}.items() if job.small else CROPS.items():
        row = _compare(job, backbone, size, crops)
        figures[backbone] = row
        for side in ("bf16", "32"):
            rate, authors = row["images_per_second"][side], row["images_per_second"]["authors"]
            figures["rows"].append(
                [
                    f"Training step, {backbone}, {row['crops']}x{size[0]}x{size[1]}, "
                    f"{SIDES[side]}, against the authors' way in float32 (TF32)",
                    f"{rate:.1f} images/s against {authors:.1f}, {rate / authors:.2f}x; "
                    f"{row['memory_mib'][side]:,.0f} against {row['memory_mib']['authors']:,.0f} MiB",
                ]
            )
    return figures


def _compare(job: Job, backbone: str, size: tuple[int, int], crops: int) -> Figures:
    """Measure the sides in turn, twice; halve the crops until all sides fit."""
    seconds: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(1 if job.small else 2):
        for side in SIDES:
            try:
                seconds[side].append(_measure(job, side, backbone, size, crops))
            except Exception as error:
                if crops == 1 or not is_out_of_memory(error):
                    raise
                crops //= 2
                break  # outside of `except` the error keeps no tensors alive
        else:
            continue
        gc.collect()
        torch.cuda.empty_cache()
        return _compare(job, backbone, size, crops)
    medians = {
        side: min(round["seconds"]["median"] for round in rounds)
        for side, rounds in seconds.items()
    }
    return {
        "crops": crops,
        "rounds": seconds,
        "images_per_second": {side: crops / value for side, value in medians.items()},
        "memory_mib": {
            side: max(round["memory_mib"] or 0.0 for round in rounds)
            for side, rounds in seconds.items()
        },
    }


def _measure(
    job: Job, side: str, backbone: str, size: tuple[int, int], crops: int
) -> dict[str, Any]:
    """Return seconds and memory of training steps, including the copies to the device."""
    gc.collect()
    if job.device == "cuda":
        torch.cuda.empty_cache()
    steps = 1 if job.small else None
    if side == "authors":
        return _authors_step(job, backbone, size, crops, steps)
    return train_step(config_of(job, backbone, size, crops), side, steps)


def config_of(job: Job, backbone: str, size: tuple[int, int], crops: int) -> Config:
    """Return the recipe of Cityscapes for one device."""
    return load_config(
        "cityscapes_w48",
        [
            f"model.backbone={backbone}", "model.weights=null", f"data.batch_size={crops}",
            f"data.crop_size=[{size[0]},{size[1]}]", f"trainer.accelerator={job.device}",
            "trainer.devices=1", f"data.root={job.folder}",
        ],
    )  # fmt: skip


def _authors_step(
    job: Job, backbone: str, size: tuple[int, int], crops: int, steps: int | None
) -> dict[str, Any]:
    device = torch.device(job.device)
    memory = PeakMemory(device)
    model = create_model(backbone).train().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-9, momentum=0.9, weight_decay=5e-4)
    image, mask = torch.randn(crops, 3, *size), torch.randint(0, 19, (crops, *size))
    seconds: list[float] = []
    while not has_enough_steps(seconds, steps):
        with timed(seconds, device):
            authors_way.training_step(model, optimizer, image.to(device), mask.to(device))
    return {"seconds": spread(seconds), **memory.read()}


def data_loading(job: Job) -> Figures:
    """Measure a loader process, and compute the workers that the measured training needs."""
    size, scenes, duration = ((128, 256), 4, 0.5) if job.small else ((1024, 2048), 8, 4.0)
    crop = (64, 128) if job.small else (512, 1024)
    write_scenes(job.folder / "data", scenes, size)
    config = load_config(
        "folder",
        [
            f"data.root={job.folder / 'data'}", "data.val_fraction=null", "data.batch_size=4",
            f"data.crop_size=[{crop[0]},{crop[1]}]", "data.scales=[0.5,2.1,0.1]",
            f"data.base_size={size[1]}", "data.workers=0", "model.weights=null",
        ],
    )  # fmt: skip
    data = build_data(config)
    data.setup("fit")
    reading, augmentation = sample_seconds(data, duration)
    one = len(reading) / (sum(reading) + sum(augmentation))
    cores = processors()
    figures: Figures = {
        "size": size, "crop": crop, "processors": cores, "one_process_per_second": one,
        "reading_share": sum(reading) * one / len(reading), "rows": [],
        "workers_per_second": {str(n): loading_rate(data, n, duration) for n in {1, min(cores, 8)}},
    }  # fmt: skip
    require(figures, one > 0, "no sample was loaded")
    for backbone, row in job.results.get("training_speed", {}).items():
        if not isinstance(row, dict) or "images_per_second" not in row:
            continue
        needed = row["images_per_second"]["bf16"]
        workers = math.ceil(MARGIN * needed / one)
        figures[backbone] = {"needed_per_second": needed, "workers": workers}
        figures["rows"].append(
            [
                f"Data loading for {backbone}, bf16, crops of {crop[0]}x{crop[1]} from PNGs of "
                f"{size[1]}x{size[0]}",
                f"needs {needed:.1f} images/s; one process loads {one:.1f}/s: {workers} workers "
                f"of {cores} processors",
            ]
        )
    return figures


def write_scenes(root: Path, number: int, size: tuple[int, int]) -> None:
    """Write synthetic scenes with camera noise as PNG, in the layout of the data set `folder`."""
    for split, count in (("train", number), ("val", 1)):
        images, masks = root / "images" / split, root / "masks" / split
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        for index in range(count):
            pixels, ids = generate_scene(count, index, size)
            noise = np.random.default_rng(index).normal(0, 4, pixels.shape)
            noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(images / f"{index}.png"), noisy[..., ::-1])
            cv2.imwrite(str(masks / f"{index}.png"), ids)
    (root / "classes.json").write_text(json.dumps({"classes": list(CLASS_NAMES)}))
