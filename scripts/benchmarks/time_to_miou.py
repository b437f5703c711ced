#!/usr/bin/env python3
"""Training time until a target mIoU on CamVid val, of hrseg and of the authors' implementation.

    scripts/benchmarks/time_to_miou.py --root CAMVID [--target 0.45] [--json F]

Both train the same network from the same weights, with the config's optimizer, schedule, losses,
crop and batch size, and are evaluated every four epochs. The time includes evaluations. hrseg runs
the code of `hrseg fit`, in the precision that it chooses for the processor, with a cache, whose
seconds are reported separately. The authors' implementation is NCHW, eager and float32, resizes
whole images and counts with NumPy (tests/oracles/authors_way.py).
"""

import argparse
import copy
import json
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from rounds import interleaved, ratio
from torch.utils.data import DataLoader, Dataset

from hrseg.benchmark.measure import timed
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.cache_writer import write_cache
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import Array
from hrseg.metrics.confusion import mean_iou
from hrseg.models.normalize import Normalize
from hrseg.training.factory import build_data, build_task
from hrseg.training.task import SegmentationTask
from hrseg.training.trainer import choose_precision
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.system import keep_memory
from tests.oracles import authors_way

EVERY = 4  # epochs between two evaluations
BOUND = 60 * 60  # maximum seconds of a training


def main() -> None:
    """Train with both implementations, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, help="CamVid in the layout of the README")
    parser.add_argument("--target", type=float, default=0.45)
    parser.add_argument("--config", default="camvid_w18_small")
    parser.add_argument("--seed", type=int, default=304)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    keep_memory()  # like hrseg's commands
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            f"data.root={arguments.root}", f"data.cache={folder}", f"seed={arguments.seed}",
            f"trainer.precision={choose_precision('cpu').precision}", "data.workers=1",
            f"trainer.check_val_every_n_epoch={EVERY}", "loggers=[]",
        ]  # fmt: skip
        config = load_config(arguments.config, overrides)
        cache_seconds: list[float] = []
        with timed(cache_seconds):
            fill_cache(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        data = build_data(config)
        data.setup("fit")
        task = build_task(config, data)
        network = copy.deepcopy(task.model)
        functions = {
            "ours": lambda: train(config, data, task, arguments.target),
            "authors_way": lambda: train_authors_way(config, data, network, arguments.target),
        }
        seconds, curves = interleaved(functions, 1)
    figures = ratio(seconds["authors_way"], seconds["ours"])
    report = {
        "precision": config.trainer["precision"],
        "cache_seconds": cache_seconds[0],
        "ratio": figures["ratio"],
        **{name: curve for name, (curve,) in curves.items()},
        "target": arguments.target,
    }
    print(f"hrseg reached {arguments.target} in 1/{figures['ratio']:.2f} of the time")
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def fill_cache(config: Config) -> None:
    """Write the decoded images into the cache of the config."""
    plain = copy.deepcopy(config)
    plain.data.cache = None
    data = build_data(plain)
    data.setup("fit")
    assert data.train_dataset is not None and data.val_dataset is not None
    files = [*data.train_dataset.files, *data.val_dataset.files]
    write_cache(Path(str(config.data.cache)), data.root, files, data.mask_reader(), 2)


Curve = list[dict[str, float]]


def train(
    config: Config, data: SegmentationDataModule, task: SegmentationTask, target: float
) -> Curve:
    """Train with the code of `hrseg fit`, and return seconds and mIoU of each evaluation."""
    curve: Curve = []

    class Recorder(pl.Callback):
        def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.sanity_checking:
                return
            record(curve, start, trainer.current_epoch + 1, task.scores["miou"], "hrseg")
            trainer.should_stop = curve[-1]["miou"] >= target or curve[-1]["seconds"] > BOUND

    trainer = pl.Trainer(
        **{**config.trainer, "num_sanity_val_steps": 0}, logger=False, callbacks=[Recorder()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False,
    )  # fmt: skip
    start = time.perf_counter()
    trainer.fit(task, data)
    return curve


class WholeImages(Dataset[tuple[Array, Array]]):
    """Training samples of the authors' implementation, which resizes whole images."""

    def __init__(self, data: SegmentationDataModule) -> None:
        """Use the training images of hrseg."""
        assert data.train_dataset is not None
        self.files, self.crop = data.train_dataset.files, data.transform.crop_size
        self.scales, self.void = data.transform.scales, 11

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        """Return a normalised image (3, h, w) and its mask (h, w)."""
        image, mask = self.files[index]
        assert mask is not None
        low, high = self.scales[0], self.scales[-1]
        pixels, ids = authors_way.sample(image, mask, self.crop, None, (low, high))
        ids[ids == self.void] = IGNORE_INDEX
        return pixels, ids


def start_worker(worker: int) -> None:
    """Seed each data worker differently."""
    cv2.setNumThreads(0)
    random.seed(worker + torch.initial_seed() % 2**31)
    np.random.seed((worker + torch.initial_seed()) % 2**31)


def train_authors_way(
    config: Config, data: SegmentationDataModule, model: torch.nn.Module, target: float
) -> Curve:
    """Train in a plain loop, and return seconds and mIoU of each evaluation."""
    model = model.to(memory_format=torch.contiguous_format).train()  # type: ignore[call-overload]
    settings = config.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    weights = torch.tensor(config.losses[0].class_weights)  # type: ignore[attr-defined]
    criterion = torch.nn.CrossEntropyLoss(weights, ignore_index=IGNORE_INDEX)
    loader = DataLoader(
        WholeImages(data), config.data.batch_size, shuffle=True, drop_last=True, num_workers=2,
        worker_init_fn=start_worker, persistent_workers=True,
    )  # fmt: skip
    epochs, warmup = config.trainer["max_epochs"], config.schedule.warmup_steps
    steps, step, curve = epochs * len(loader), 0, Curve()
    start = time.perf_counter()
    for epoch in range(epochs):
        for image, mask in loader:
            factor = min(1.0, (step + 1) / (warmup + 1))
            for group in optimizer.param_groups:
                group["lr"] = settings.lr * factor * (1 - step / steps) ** 0.9
            logits = authors_way.bilinear(model.outputs(image)["out"], mask.shape[-2:])
            optimizer.zero_grad()
            criterion(logits, mask).backward()
            optimizer.step()
            step += 1
        if (epoch + 1) % EVERY == 0:
            record(curve, start, epoch + 1, score(model, data), "authors' implementation")
            if curve[-1]["miou"] >= target or curve[-1]["seconds"] > BOUND:
                break
    return curve


@torch.inference_mode()
def score(model: torch.nn.Module, data: SegmentationDataModule) -> float:
    """Return the mIoU on the validation images, evaluated one by one in NCHW."""
    assert data.val_dataset is not None
    model.eval()
    total = np.zeros((data.num_classes, data.num_classes))
    for index in range(len(data.val_dataset)):
        item = data.val_dataset[index]
        image = Normalize()(item["image"][None]).contiguous()
        logits = model.outputs(image)["out"]  # type: ignore[operator]
        total += authors_way.confusion(logits, item["mask"].numpy().astype(np.int64))
    model.train()
    return mean_iou(torch.from_numpy(total).long())


def record(curve: Curve, start: float, epoch: int, miou: float, name: str) -> None:
    """Append an evaluation to the curve, and print it."""
    curve.append({"epoch": epoch, "seconds": time.perf_counter() - start, "miou": miou})
    print(f"{name}: epoch {epoch}, {curve[-1]['seconds']:.0f} s, mIoU {miou:.4f}", flush=True)


if __name__ == "__main__":
    main()
