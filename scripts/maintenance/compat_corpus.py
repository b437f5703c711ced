#!/usr/bin/env python3
"""Compatibility corpus tests/compat/<version>.tar.xz: files of this version for later versions.

    scripts/maintenance/compat_corpus.py            takes a minute; then commit the archive

Run it before a release. Archives of earlier versions stay unchanged; test_compatibility.py reads
all of them. Validation starts with weights from a formula. They compress well, and the predicted
classes still vary across an image.
"""

import lzma
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn

from hrseg.cli import main as hrseg_main
from hrseg.config.loader import load_config, shipped_configs, to_yaml
from hrseg.data import Synthetic
from hrseg.training.task import SegmentationTask
from hrseg.utils.constants import __version__

ARCHIVE = Path(__file__).parents[2] / "tests" / "compat" / f"{__version__}.tar.xz"
CONFIGS = {
    "minimal": """\
name: minimal
data: {name: folder, root: data, batch_size: 2, crop_size: [64, 64], workers: 0}
model: {backbone: hrnet_w18_small_v1}
trainer: {max_epochs: 1, accelerator: cpu, precision: 32}
""",
    "full": """\
name: full
seed: 7
data:
  name: folder
  root: data
  batch_size: 2
  crop_size: [64, 64]
  scales: [0.5, 2.0, 0.25]
  base_size: 128
  photometric: 0.4
  class_uniform: 0.5
  workers: 0
  ignore_ids: [255]
  on_error: skip
  worker_timeout: 60
model: {backbone: hrnet_w18_small_v1, head: ocr, align_corners: true, bn_momentum: 0.1}
losses:
  - cross_entropy
  - {name: ohem, on: aux, weight: 0.4, min_kept: 1000}
  - {name: dice, weight: 0.5}
  - {name: lovasz, weight: 0.5}
  - {name: boundary, weight: 0.1, tolerance: 3}
  - {name: rmi, weight: 0.1, stride: 3}
optimizer: {name: adamw, lr: 0.001, weight_decay: 0.01, head_lr_multiplier: 2.0}
schedule: {name: poly, power: 0.9, warmup_steps: 1}
inference: {protocol: mmseg, scales: [0.5, 1.0], flip: true, details: true}
ema_decay: 0.9
early_stopping_patience: 5
prediction_images: 1
loggers: []
on_bad_loss: skip
save_every_minutes: 10
trainer: {max_epochs: 1, accelerator: cpu, precision: 32, accumulate_grad_batches: 2}
""",
    # Stopped during the second epoch. These settings keep the weights of the formula.
    "stopped": """\
name: stopped
data: {name: folder, root: data, batch_size: 2, crop_size: [64, 64], workers: 0}
model: {backbone: hrnet_w18_small_v1, bn_momentum: 0}
optimizer: {name: sgd, lr: 0, momentum: 0}
loggers: []
trainer: {max_epochs: 3, accelerator: cpu, precision: 32}
""",
}
# Files that hrseg never reads, and duplicates.
EXCLUDED = ("report.html", "predictions", "events.out.tfevents", ".proof.json", ".previous.")


def main() -> None:
    """Write the corpus into a temporary folder, and pack the archive."""
    torch.set_num_threads(1)
    SegmentationTask.on_validation_epoch_start = _filled_validation  # type: ignore[method-assign]
    SegmentationTask.training_step = _stopped_step  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(prefix="hrseg-compat-") as folder:
        os.chdir(folder)
        write_corpus()
        pack(Path(), ARCHIVE)
    print(f"wrote {ARCHIVE} ({ARCHIVE.stat().st_size / 1024:.0f} KiB)")


def write_corpus() -> None:
    """Write each kind of file into the current folder, with the commands of users."""
    Synthetic("data", num_train=4, num_val=2, image_size=(48, 64)).prepare_data()
    Path("configs").mkdir()
    for name in shipped_configs():
        Path("configs", f"{name}.yaml").write_text(to_yaml(load_config(name)), encoding="utf-8")
    for name, text in CONFIGS.items():
        Path("configs", f"{name}.yaml").write_text(text, encoding="utf-8")
        run("fit", "--config", f"configs/{name}.yaml", exit_code=130 if name == "stopped" else 0)
    run("data", "check", "--config", "configs/minimal.yaml", "--hash")
    run("data", "cache", "--config", "configs/minimal.yaml", "data.cache=cache")
    best = "runs/minimal/latest/checkpoints/best.ckpt"
    Path("weights").mkdir()
    run("weights", "convert", best, "--to", "hrseg", "--out", "weights/hrseg.safetensors")
    run("weights", "convert", best, "--to", "official", "--out", "weights/official.pth")
    run("export", best, "--images", "0", "--out", "weights/exported.onnx")


def run(*words: str, exit_code: int = 0) -> None:
    """Run an hrseg command, and exit if its exit code is unexpected."""
    if (code := hrseg_main(words)) != exit_code:
        sys.exit(f"hrseg {' '.join(words)} ended with exit code {code}. Expected: {exit_code}.")


def pack(folder: Path, archive: Path) -> None:
    """Compress a folder. The large dictionary stores equal bytes of several files once."""
    archive.parent.mkdir(exist_ok=True)
    partial = archive.with_suffix(".partial")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 2**27}]
    with (
        lzma.open(partial, "wb", filters=filters) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            duplicate = "minimal" not in path.parts and path.name == "best.ckpt"
            if not duplicate and not any(word in str(path) for word in EXCLUDED):
                tar.add(path, recursive=False)
    shutil.move(partial, archive)


_validation_epoch_start = SegmentationTask.on_validation_epoch_start
_training_step = SegmentationTask.training_step


def _filled_validation(task: SegmentationTask) -> None:
    """Fill the weights and the optimizer state by a formula before a validation of `fit`."""
    if task.trainer.state.fn == TrainerFn.FITTING:
        fill(task.model, 0)
        for callback in task.trainer.callbacks:  # type: ignore[attr-defined]
            # With weight averaging the task contains the averages, and this model the weights.
            if (average_model := getattr(callback, "_average_model", None)) is not None:
                fill(average_model.module.model, 1)
        for state in task.trainer.optimizers[0].state.values():
            for value in state.values():
                if isinstance(value, Tensor) and value.dim():
                    value.fill_(1e-4)
    _validation_epoch_start(task)


def _stopped_step(task: SegmentationTask, batch: dict[str, Any], batch_idx: int) -> Tensor:
    """Send Ctrl-C in the second epoch, which only one of the trainings reaches."""
    if (task.current_epoch, batch_idx) == (1, 0):
        os.kill(os.getpid(), signal.SIGINT)
    return _training_step(task, batch, batch_idx)


@torch.no_grad()
def fill(model: nn.Module, seed: int) -> None:
    """Give each tensor values that repeat with a period of 61, of their usual size."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        draw = zlib.crc32(f"{seed} {name}".encode())
        if tensor.dim() == 1:  # constant over a norm, so that it folds into weights that repeat
            constant = 1.0 if name.endswith(("weight", "running_var")) else 0.0
            values = constant + 0.1 * _wave(1 if constant else len(tensor), draw)
            tensor.copy_(values.expand(tensor.shape))
        else:
            values = _wave(tensor.numel(), draw) * (2 * len(tensor) / tensor.numel()) ** 0.5
            # Fill in memory order, the order of the saved bytes.
            order = sorted(range(tensor.dim()), key=lambda dim: -tensor.stride(dim))
            ordered = tensor.permute(order)
            ordered.copy_(values.view(ordered.shape))


def _wave(count: int, draw: int) -> Tensor:
    """Return `count` values with mean 0 and variance 1, different for each `draw`."""
    index = torch.arange(count) * (1 + draw % 60) + draw // 60
    squares = torch.arange(61.0).square() % 61
    table = (squares - squares.mean()) / squares.std()
    return table[index % 61]


if __name__ == "__main__":
    main()
