"""Benchmark of the evaluation: seconds per validation image, by step.

`--json` writes, with times in seconds per image:

    command, config, precision, protocol, machine (as of `hrseg benchmark model`)
    images                      that were timed; the first one was evaluated once more beforehand
    network, after_network      {median, lowest, highest, mean, steps, first}; after the network:
                                interpolating, fusing, argmax, counting
    reading                     the same; workers do it beside the evaluation
    images_per_second           without reading
    memory_mib, before_mib, peak_mib
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich import get_console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hrseg.benchmark.measure import (
    PeakMemory,
    device_of,
    in_process,
    machine,
    on_one_device,
    spread,
    timed,
    trainer_for,
)
from hrseg.benchmark.model import header, memory_note, memory_text, milliseconds, trained_in
from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.loader import to_dict
from hrseg.config.protocols import Protocol, make_protocol
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.inference.exported_model import is_exported, open_engine
from hrseg.training.factory import build_data, build_task
from hrseg.training.loggers import quieten
from hrseg.training.task import SegmentationTask
from hrseg.utils.console import say
from hrseg.utils.files import write_json

_PARTS = {"network": "network", "after_network": "after the network", "reading": "reading"}


def benchmark_evaluation(
    config: Config, images: int = 10, checkpoint: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Measure the evaluation of the first validation images in a process of its own; print it.

    Args:
        config: says data set, network, protocol and precision.
        images: how many are timed, at most.
        checkpoint: its weights, or an exported file; None: random ones.
        out: file for the result as JSON.

    Returns:
        The result, as this module's first lines say.

    Raises:
        DataError: the data set is not there, or faulty.
        MemoryError: it did not suffice.
    """
    quieten()
    config, device = on_one_device(config), device_of(config)
    precision = trained_in(config, device)
    with get_console().status("evaluating"):
        found = in_process(evaluation, config, precision, images, checkpoint)
    protocol = make_protocol(config.inference.protocol, to_dict(config.inference))
    result = {
        "command": "benchmark evaluation",
        "config": config.name,
        "machine": machine(device),
        "precision": precision,
        "protocol": protocol.to_dict(),
        "images_per_second": 1 / (found["network"]["mean"] + found["after_network"]["mean"]),
        **found,
    }
    _show(result, protocol)
    if out is not None:
        write_json(out, result)
    return result


def evaluation(
    config: Config, precision: str, images: int, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Evaluate the first validation images as `hrseg validate` does; arguments as above.

    Returns:
        "images", "network", "after_network" and "reading" (as `spread`), and what `PeakMemory`
        says.
    """
    watch = _ImageTimes()
    trainer = trainer_for(config, precision, watch)
    memory = PeakMemory(trainer.strategy.root_device)
    data = build_data(config)
    data.prepare_data()
    data.setup("validate")
    assert data.val_dataset is not None
    items = _TimedItems(data.val_dataset, [0, *range(min(images, len(data.val_dataset)))])
    task = _task_to_score(config, data, checkpoint)
    trainer.validate(task, DataLoader(items, 1), verbose=False)
    network = [sum(parts) for parts in watch.network]  # of each scale and flip
    after = [whole - inner for whole, inner in zip(watch.whole, network, strict=True)]
    parts = {"network": network, "after_network": after, "reading": items.seconds}
    spreads = {name: spread(seconds, warm_up=1) for name, seconds in parts.items()}
    return {"images": len(items) - 1, **spreads, **memory.read()}


def _task_to_score(
    config: Config, data: SegmentationDataModule, checkpoint: Path | None
) -> SegmentationTask:
    if checkpoint is not None and is_exported(checkpoint):
        engine = open_engine(checkpoint)
        task = build_task(config, data, weights=False, engine=engine)
        engine.check(task.protocol)
        return task
    task = build_task(config, data, weights=False)
    if checkpoint is not None:
        content = read_checkpoint(checkpoint)
        load_weights(task.model, content, purpose="evaluate", origin=checkpoint)
    return task


class _ImageTimes(Callback):
    """Times each image that is validated, and the network's part in it."""

    def __init__(self) -> None:
        self.whole, self.network, self.timer = list[float](), list[list[float]](), ExitStack()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        assert isinstance(pl_module, SegmentationTask) and pl_module.evaluator is not None
        device = trainer.strategy.root_device
        if not self.network:
            watched = self._watched(pl_module.evaluator.model, device)
            pl_module.evaluator = replace(pl_module.evaluator, model=watched)
        self.network.append([])
        self.timer.enter_context(timed(self.whole, device))

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.timer.close()

    def _watched(
        self, model: Callable[[Tensor], Tensor], device: torch.device
    ) -> Callable[[Tensor], Tensor]:
        def run(image: Tensor) -> Tensor:
            with timed(self.network[-1], device):
                return model(image)

        return run


class _TimedItems(Dataset[dict[str, Any]]):
    """Some items of a data set, and the seconds that reading each of them took."""

    def __init__(self, items: Dataset[dict[str, Any]], indices: Sequence[int]) -> None:
        self.items, self.indices, self.seconds = items, indices, list[float]()

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        with timed(self.seconds):
            return self.items[self.indices[index]]


def _show(result: dict[str, Any], protocol: Protocol) -> None:
    table = Table("part of an image")
    for name in ("ms, median", "lowest..highest", "share"):
        table.add_column(name, justify="right")
    whole = sum(result[part]["median"] for part in _PARTS)
    for part, name in _PARTS.items():
        share = f"{100 * result[part]['median'] / whole:.0f} %"
        table.add_row(name, *milliseconds(result[part]), share)
    lines = (
        header(result),
        f"{result['images']} validation images, precision {result['precision']}",
        str(protocol),
    )
    say(*lines)
    get_console().print(table)
    say(
        f"{result['images_per_second']:.3g} images/s without reading; "
        f"memory {memory_text(result)} MiB",
        memory_note(result["machine"]),
    )
