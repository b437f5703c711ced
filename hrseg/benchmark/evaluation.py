"""Benchmark of the evaluation: seconds per validation image, split into network and other parts."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich import get_console
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from hrseg.benchmark import measure, model
from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.inference.exported_model import is_exported, open_engine
from hrseg.training.factory import build_data, build_task
from hrseg.training.loggers import quieten
from hrseg.training.task import SegmentationTask
from hrseg.utils.console import echo, number_table

_PARTS = {"network": "network", "after_network": "after the network", "reading": "reading"}


def benchmark_evaluation(
    config: Config, images: int = 10, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Measure the evaluation of validation images in a new process, and print the figures.

    Args:
        config: the config with the data set.
        images: number of images, the first of the validation split.
        checkpoint: a checkpoint or an exported file; None: random weights.

    Returns:
        The content of the file of `--json`.

    Raises:
        DataError: if the data set is missing or damaged.
        OutOfMemory: if the process runs out of memory.
    """
    quieten()
    config, device = measure.on_one_device(config), measure.device_of(config)
    precision = model.trained_in(config, device)
    with get_console().status("evaluating"):
        figures = measure.in_process(evaluation, config, precision, images, checkpoint)
    protocol = make_protocol(config.inference.protocol, dict(config.inference))
    result = {
        "command": "benchmark evaluation",
        "config": config.name,
        "machine": measure.machine(device),
        "precision": precision,
        "protocol": protocol.to_dict(),
        "images_per_second": 1 / (figures["network"]["mean"] + figures["after_network"]["mean"]),
        **figures,
    }
    _show(result, str(protocol))
    return result


def evaluation(
    config: Config, precision: str, images: int, checkpoint: Path | None = None
) -> dict[str, Any]:
    """Evaluate the first validation images with the same code as `hrseg validate`.

    Returns:
        "images", "network", "after_network" and "reading" (results of `spread`), and the result of
        `PeakMemory`.
    """
    timer = _ImageTimer()
    trainer = measure.trainer_for(config, precision, timer)
    memory = measure.PeakMemory(trainer.strategy.root_device)
    data = build_data(config)
    data.prepare_data()
    data.setup("validate")
    assert data.val_dataset is not None
    items = _TimedItems(data.val_dataset, [0, *range(min(images, len(data.val_dataset)))])
    engine = open_engine(checkpoint) if checkpoint and is_exported(checkpoint) else None
    task = build_task(config, data, weights=False, engine=engine)
    if engine is not None:
        engine.check(task.protocol)
    elif checkpoint is not None:
        load_weights(task.model, read_checkpoint(checkpoint), origin=checkpoint)
    trainer.validate(task, DataLoader(items, 1), verbose=False)
    network = [sum(parts) for parts in timer.network]  # one part per scale and flip
    after = [total - part for total, part in zip(timer.total, network, strict=True)]
    parts = {"network": network, "after_network": after, "reading": items.seconds}
    spreads = {name: measure.spread(seconds, warm_up=1) for name, seconds in parts.items()}
    return {"images": len(items) - 1, **spreads, **memory.read()}


class _ImageTimer(Callback):
    """Measure the seconds of each validation image, in total and in the network."""

    def __init__(self) -> None:
        self.total, self.network = list[float](), list[list[float]]()
        self.stack = ExitStack()

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any
    ) -> None:
        assert isinstance(pl_module, SegmentationTask) and pl_module.evaluator is not None
        device = trainer.strategy.root_device
        if not self.network:
            network = pl_module.evaluator.model

            def timed_network(image: Tensor) -> Tensor:
                with measure.timed(self.network[-1], device):
                    return network(image)

            pl_module.evaluator.model = timed_network
        self.network.append([])
        self.stack.enter_context(measure.timed(self.total, device))

    def on_validation_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.stack.close()


class _TimedItems(Subset[dict[str, Any]]):
    """Subset of a data set that measures the seconds of reading each item."""

    def __init__(self, items: Dataset[dict[str, Any]], indices: list[int]) -> None:
        super().__init__(items, indices)
        self.seconds = list[float]()

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        with measure.timed(self.seconds):
            return super().__getitems__(indices)


def _show(result: dict[str, Any], protocol: str) -> None:
    table = number_table("step per image", "ms, median", "lowest..highest", "share")
    total = sum(result[part]["median"] for part in _PARTS)
    for part, name in _PARTS.items():
        share = f"{100 * result[part]['median'] / total:.0f} %"
        table.add_row(name, *model.milliseconds(result[part]), share)
    images = f"{result['images']} validation images, precision {result['precision']}"
    echo(model.header(result), images, protocol)
    get_console().print(table)
    echo(
        f"{result['images_per_second']:.3g} images/s without reading, "
        f"memory {model.memory_text(result)} MiB",
        model.MEMORY_NOTE,
    )
