"""Speed of training against the authors' way, and the data loading rate that it needs."""

import gc
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from checks_golden import tf32_state
from job import Figures, Job, require

from hrseg.benchmark.data import MARGIN, loading_rate
from hrseg.benchmark.measure import PeakMemory, has_enough_steps, spread, timed
from hrseg.benchmark.model import train_step
from hrseg.config.loader import load_config
from hrseg.data.synthetic.canvas import CLASS_NAMES
from hrseg.data.synthetic.scene import generate_scene
from hrseg.models import create_model
from hrseg.training.factory import build_data
from hrseg.training.loggers import quieten
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.system import processors
from tests.oracles import authors_way

CROPS = {"hrnet_w18": 12, "hrnet_w48": 8}  # crops per step; halved until they fit
# Precision and cuDNN's benchmark mode. The authors' recipe enables that mode; hrseg's do not.
SIDES = {"bf16": ("bf16", False), "bf16, benchmark=true": ("bf16", True), "float32": ("32", False)}
AUTHORS = "authors"


def training_speed(job: Job) -> Figures:
    """Measure training steps of hrseg and of the authors' way on random crops."""
    quieten()
    size = (64, 128) if job.small else (512, 1024)
    figures: Figures = {"size": size, "float32": tf32_state(), "rows": []}
    for backbone, crops in {"hrnet_w18_small_v1": 2}.items() if job.small else CROPS.items():
        row = _compare(job, backbone, size, crops)
        figures[backbone] = row
        rates, memory = row["images_per_second"], row["memory_mib"]
        for side in SIDES:
            figures["rows"].append(
                [
                    f"Training step, {backbone}, {row['crops']}x{size[0]}x{size[1]}, hrseg in "
                    f"{side} against the authors' way in float32 ({tf32_state()})",
                    f"{rates[side]:.1f} images/s against {rates[AUTHORS]:.1f}, "
                    f"{rates[side] / rates[AUTHORS]:.2f}x; {memory[side]:,.0f} against "
                    f"{memory[AUTHORS]:,.0f} MiB",
                ]
            )
    return figures


def _compare(job: Job, backbone: str, size: tuple[int, int], crops: int) -> Figures:
    """Measure each side with as many crops as fit on all sides: `crops`, or a half, a quarter."""
    steps: dict[str, Any] = {}
    while len(steps) <= len(SIDES):
        for side in (AUTHORS, *SIDES):  # the authors' way needs the most memory
            gc.collect()
            torch.cuda.empty_cache()
            try:
                steps[side] = _measure(job, side, backbone, size, crops)
            except Exception as error:
                if crops == 1 or not is_out_of_memory(error):
                    raise
                steps, crops = {}, crops // 2
                break
    return {
        "crops": crops,
        "steps": steps,
        "images_per_second": {side: crops / x["seconds"]["median"] for side, x in steps.items()},
        "memory_mib": {side: x["memory_mib"] or 0.0 for side, x in steps.items()},
    }


def _measure(
    job: Job, side: str, backbone: str, size: tuple[int, int], crops: int
) -> dict[str, Any]:
    """Return seconds and memory of training steps, including the copies to the device."""
    number = 1 if job.small else None
    if side == AUTHORS:
        return _authors_steps(job, backbone, size, crops, number)
    precision, benchmark = SIDES[side]
    config = load_config(
        "cityscapes_w48",
        [
            f"model.backbone={backbone}", "model.weights=null", f"data.batch_size={crops}",
            f"data.crop_size=[{size[0]},{size[1]}]", f"trainer.accelerator={job.device}",
            "trainer.devices=1", f"trainer.benchmark={str(benchmark).lower()}",
            f"data.root={job.folder}",
        ],
    )  # fmt: skip
    return train_step(config, precision, number)


def _authors_steps(
    job: Job, backbone: str, size: tuple[int, int], crops: int, number: int | None
) -> dict[str, Any]:
    device = torch.device(job.device)
    torch.backends.cudnn.benchmark = True
    memory = PeakMemory(device)
    model = create_model(backbone).train().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 1e-9, momentum=0.9, weight_decay=5e-4)
    image, mask = torch.randn(crops, 3, *size), torch.randint(0, 19, (crops, *size))
    seconds: list[float] = []
    while not has_enough_steps(seconds, number):
        with timed(seconds, device):
            authors_way.training_step(model, optimizer, image.to(device), mask.to(device))
    return {"seconds": spread(seconds), **memory.read()}


def data_loading(job: Job) -> Figures:
    """Measure a loader process, and compute the workers that the measured training needs."""
    size, scenes, duration = ((128, 256), 8, 0.2) if job.small else ((1024, 2048), 8, 4.0)
    crop = (64, 128) if job.small else (512, 1024)
    write_scenes(job.folder / "data", scenes, size)
    config = load_config(
        "folder",
        [
            f"data.root={job.folder / 'data'}", "data.val_fraction=null", "data.batch_size=4",
            f"data.crop_size=[{crop[0]},{crop[1]}]", "data.scales=[0.5,2.1,0.1]",
            f"data.base_size={size[1]}", "model.weights=null",
        ],
    )  # fmt: skip
    data, cores = build_data(config), processors()
    data.setup("fit")
    counts = [1] if job.small else sorted({1, min(cores, 8)})
    rates = {str(number): loading_rate(data, number, duration) for number in counts}
    figures: Figures = {
        "size": size, "crop": crop, "processors": cores, "workers_per_second": rates, "rows": [],
    }  # fmt: skip
    require(figures, min(rates.values()) > 0, "no sample was loaded")
    for backbone, row in job.results.get("training_speed", {}).items():
        if not isinstance(row, dict):
            continue
        needed = row["images_per_second"]["bf16"]
        workers = math.ceil(MARGIN * needed / rates["1"])
        figures[backbone] = {"needed_per_second": needed, "workers": workers}
        figures["rows"].append(
            [
                f"Data loading for {backbone}, bf16, crops of {crop[0]}x{crop[1]} from PNGs of "
                f"{size[1]}x{size[0]}",
                f"training needs {needed:.1f} images/s, one worker loads {rates['1']:.1f}/s: "
                f"{workers} workers; this machine has {cores} processors",
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
