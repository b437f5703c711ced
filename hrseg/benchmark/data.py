"""Benchmark of the data pipeline: samples per second, and whether training waits for data."""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any, TypeVar

import cv2
from rich import get_console

from hrseg.benchmark import measure, model
from hrseg.benchmark.measure import timed
from hrseg.benchmark.model import milliseconds, three_digits
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.samplers import EpochSampler
from hrseg.training.factory import build_data
from hrseg.training.loggers import quieten
from hrseg.utils.console import echo, number_table
from hrseg.utils.system import processors

T = TypeVar("T")
MARGIN = 1.2  # required ratio of the recommended workers' rate to the rate of the training
SAME = 0.95  # rates above this share of the best rate count as equal to it


def benchmark_data(config: Config, seconds: float = 5.0, step: bool = True) -> dict[str, Any]:
    """Measure the loading of training samples, and print the advice.

    Args:
        config: the config with the data set.
        seconds: approximate duration for each number of workers.
        step: also measure a training step.

    Returns:
        The content of the file of `--json`.

    Raises:
        DataError: if the data set is missing or damaged.
    """
    quieten()
    config, device = measure.on_one_device(config), measure.device_of(config)
    data = build_data(config)
    data.prepare_data()
    data.setup("fit")
    workers, console = data.workers, get_console()
    reading, augmentation = sample_seconds(data, seconds)
    share = sum(reading) / (sum(reading) + sum(augmentation))
    rates: dict[int, float] = {}
    for number in sorted({*worker_counts(processors()), workers}):
        with console.status(f"data.workers={number}"):
            rates[number] = loading_rate(data, number, seconds)
    precision, step_seconds = model.trained_in(config, device), None
    if step:
        with console.status("training steps"):
            step_seconds = measure.in_process(model.train_step, config, precision, 3)["seconds"]
    wanted = config.data.batch_size / step_seconds["median"] if step_seconds else None
    result = {
        "command": "benchmark data",
        "config": config.name,
        "machine": measure.machine(device),
        "precision": precision,
        "batch": config.data.batch_size,
        "reading": measure.spread(reading, warm_up=1),
        "augmentation": measure.spread(augmentation, warm_up=1),
        "reading_share": share,
        "loader": {str(number): rate for number, rate in rates.items()},
        "workers": workers,
        "recommended_workers": recommended(rates, wanted),
        "train_step": step_seconds,
        "wanted": wanted,
        "data_bound": None if wanted is None else rates[workers] < wanted,
        "verdict": verdict(rates, workers, wanted, share),
    }
    _show(result)
    return result


def sample_seconds(data: SegmentationDataModule, seconds: float) -> tuple[list[float], list[float]]:
    """Return the seconds of reading and of augmenting each sample, in one process.

    The samples are in training order. Measures for `seconds` or 200 samples, but at least 8.
    """
    sampler, dataset = data.train_dataloader().sampler, data.train_dataset
    assert dataset is not None and isinstance(sampler, EpochSampler)
    reading: list[float] = []
    total: list[float] = []
    read = dataset.read

    def timed_read(*arguments: Any) -> Any:
        with timed(reading):
            return read(*arguments)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    dataset.read = timed_read  # type: ignore[assignment, method-assign]
    try:
        for key in islice(_epochs(sampler, sampler), 200):
            with timed(total):
                dataset[key]
            if sum(total) > seconds and len(total) >= 8:
                break
    finally:
        del dataset.read
        cv2.setNumThreads(threads)
    return reading, [sample - part for sample, part in zip(total, reading, strict=True)]


def loading_rate(data: SegmentationDataModule, workers: int, seconds: float) -> float:
    """Return the samples per second of the training loader with a number of workers.

    Counting starts after the prefetched batches are consumed, and continues across epochs. The
    result is the median of three intervals, which makes it robust to short interruptions.
    """
    data.workers = workers
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    batches = _epochs(loader.sampler, loader)
    for _ in range(1 + (loader.prefetch_factor or 0) * workers):
        next(batches)
    rates = []
    for _ in range(3):
        start, loaded = time.perf_counter(), 0
        while loaded < 3 or time.perf_counter() - start < seconds / 3:
            next(batches)
            loaded += 1
        rates.append(loaded * (loader.batch_size or 1) / (time.perf_counter() - start))
    return statistics.median(rates)


def worker_counts(processors: int) -> list[int]:
    """Return the numbers of workers to measure: 0, 1, 2, 3, 4, 6, 8, 12, 16 for 16 processors."""
    powers = (2**power for power in range(1, processors.bit_length()))
    counts = {0, 1, processors, *(n for power in powers for n in (power, power + power // 2))}
    return sorted(number for number in counts if number <= processors)


def recommended(rates: Mapping[int, float], wanted: float | None) -> int:
    """Return the smallest number of workers with MARGIN times the wanted rate, or the best one.

    Workers load during the training steps. 0 is recommended only if it is the only measured number.
    """
    parallel = {number: rate for number, rate in sorted(rates.items()) if number > 0} or rates
    best = SAME * max(parallel.values())
    sufficient = best if wanted is None else min(best, MARGIN * wanted)
    return next(number for number, rate in parallel.items() if rate >= sufficient)


def verdict(
    rates: Mapping[int, float], workers: int, wanted: float | None, reading_share: float
) -> str:
    """Return whether training waits for its data, and the advice.

    Args:
        rates: samples per second by number of workers.
        workers: the config's number of workers.
        wanted: samples per second that training consumes; None: unknown.
        reading_share: share of a sample's time for reading, 0..1. A cache saves this part.
    """
    rate, best = rates[workers], recommended(rates, wanted)
    if wanted is None:
        return f"data.workers={workers} loads {three_digits(rate)} samples/s"
    if workers == 0:
        share = wanted / (wanted + rate)
        return (
            f"data.workers=0 loads between the training steps, {100 * share:.0f} % of the time. "
            f"Fix: data.workers={best} loads during the steps"
        )
    if rate >= wanted:
        return f"not data-bound: loading needs {100 * wanted / rate:.0f} % of a training step"
    fixes = []
    if best != workers:
        slow = "" if rates[best] >= wanted else f" ({three_digits(rates[best])} samples/s)"
        fixes.append(f"data.workers={best}{slow}")
    if reading_share > 0.5:
        fixes.append("`hrseg data cache`")
    advice = f"Fix: {' or '.join(fixes)}" if fixes else "Augmentation limits the rate"
    return (
        f"data-bound: training needs {three_digits(wanted)} samples/s, "
        f"data.workers={workers} loads {three_digits(rate)}. {advice}"
    )


def _epochs(sampler: EpochSampler, items: Iterable[T]) -> Iterator[T]:
    """Yield the items of consecutive epochs."""
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from items


def _show(result: Mapping[str, Any]) -> None:
    step, wanted, share = result["train_step"], result["wanted"], result["reading_share"]
    parts = [
        f"{name} {milliseconds(result[name])[0]} ms ({100 * part:.0f} %)"
        for name, part in (("reading", share), ("augmentation", 1 - share))
    ]
    echo(model.header(result), f"one sample in one process: {', '.join(parts)}")
    if step:
        echo(
            f"one training step: {milliseconds(step)[0]} ms for {result['batch']} samples, "
            f"precision {result['precision']}"
        )
    table = number_table("data.workers", "samples/s", "share of the training's rate")
    for workers, rate in result["loader"].items():
        share_of_wanted = f"{100 * rate / wanted:,.0f} %" if wanted else "-"
        mark = " (config)" if int(workers) == result["workers"] else ""
        table.add_row(f"{workers}{mark}", three_digits(rate), share_of_wanted)
    get_console().print(table)
    on_cpu = result["machine"]["device"] == "cpu"
    note = "; training steps on the CPU slow the workers down" if on_cpu else ""
    echo(
        result["verdict"],
        f"rates are measured without training steps{note}",
        f"recommended: data.workers={result['recommended_workers']}",
    )
