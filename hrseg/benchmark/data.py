"""Benchmark of the data pipeline: samples per second, and whether training waits for data.

`--json` writes command, config, machine, precision, batch; in seconds of a sample in one process
reading and augmentation (each {median, lowest, highest, mean, steps, first}), and reading_share of
both (0..1); loader {"0": rate, "1": rate, ...} in samples per second by number of workers; workers
(the config's) and recommended_workers; train_step in seconds (null with --no-model); wanted
(samples per second that training takes), data_bound (whether fewer come), verdict.
"""

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from pathlib import Path
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
from hrseg.utils.console import echo
from hrseg.utils.files import write_json
from hrseg.utils.system import processors

T = TypeVar("T")
MARGIN = 1.2  # of the recommended workers' rate, over the rate that training takes
SAME = 0.95  # this share of the best rate is as good


def benchmark_data(
    config: Config, seconds: float = 5.0, step: bool = True, out: Path | None = None
) -> dict[str, Any]:
    """Measure training samples, about `seconds` for each number of workers; print the advice.

    With `step` measure a training step too. Return the content of the JSON file `out`.

    Raises:
        DataError: the data set is missing or faulty.
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
    if out is not None:
        write_json(out, result)
    return result


def sample_seconds(data: SegmentationDataModule, seconds: float) -> tuple[list[float], list[float]]:
    """Return the times of reading and of augmenting samples, as one worker does it.

    In the order of the training, for that many seconds or 200 samples, but at least 8.
    """
    sampler, dataset = data.train_dataloader().sampler, data.train_dataset
    assert dataset is not None and isinstance(sampler, EpochSampler)
    reading: list[float] = []
    whole: list[float] = []
    read = dataset.read

    def timed_read(*arguments: Any) -> Any:
        with timed(reading):
            return read(*arguments)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    dataset.read = timed_read  # type: ignore[assignment, method-assign]
    try:
        for key in islice(_epochs(sampler, sampler), 200):
            with timed(whole):
                dataset[key]
            if sum(whole) > seconds and len(whole) >= 8:
                break
    finally:
        del dataset.read
        cv2.setNumThreads(threads)
    return reading, [total - part for total, part in zip(whole, reading, strict=True)]


def loading_rate(data: SegmentationDataModule, workers: int, seconds: float) -> float:
    """Return the samples per second of the training loader with so many workers.

    Counted when the workers run and the prefetched batches are used up, across epochs. The median
    of three thirds of the seconds is robust against a moment of other work.
    """
    data.workers = workers
    loader = data.train_dataloader()
    assert isinstance(loader.sampler, EpochSampler)
    batches = _epochs(loader.sampler, loader)
    for _ in range(1 + (loader.prefetch_factor or 0) * workers):
        next(batches)
    rates = []
    for _ in range(3):
        began, done = time.perf_counter(), 0
        while done < 3 or time.perf_counter() - began < seconds / 3:
            next(batches)
            done += 1
        rates.append(done * (loader.batch_size or 1) / (time.perf_counter() - began))
    return statistics.median(rates)


def worker_counts(processors: int) -> list[int]:
    """Return the numbers of workers to try, for 16 processors 0, 1, 2, 3, 4, 6, 8, 12, 16."""
    powers = (2**power for power in range(1, processors.bit_length()))
    counts = {0, 1, processors, *(n for power in powers for n in (power, power + power // 2))}
    return sorted(number for number in counts if number <= processors)


def recommended(rates: Mapping[int, float], wanted: float | None) -> int:
    """Return the fewest workers that bring MARGIN more than training takes, else the best.

    Loading beside the steps is better than between them, so 0 only if nothing else was tried.
    """
    beside = {number: rate for number, rate in sorted(rates.items()) if number > 0} or rates
    best = SAME * max(beside.values())
    sufficient = best if wanted is None else min(best, MARGIN * wanted)
    return next(number for number, rate in beside.items() if rate >= sufficient)


def verdict(
    rates: Mapping[int, float], workers: int, wanted: float | None, reading_share: float
) -> str:
    """Return whether training waits for its data, and the advice.

    Args:
        rates: samples per second by number of workers.
        workers: the config's number of workers.
        wanted: samples per second that training takes; None: unknown.
        reading_share: of a sample's time, 0..1; a cache saves this part.
    """
    come, best = rates[workers], recommended(rates, wanted)
    if wanted is None:
        return f"{three_digits(come)} samples/s come with data.workers={workers}"
    if workers == 0:
        share = wanted / (wanted + come)
        return (
            f"data.workers=0 loads between the steps, {100 * share:.0f} % of the time; "
            f"data.workers={best} loads beside them"
        )
    if come >= wanted:
        return f"not data-bound: data takes {100 * wanted / come:.0f} % of the step"
    ways = []
    if best != workers:
        short = "" if rates[best] >= wanted else f", which brings {three_digits(rates[best])},"
        ways.append(f"data.workers={best}{short}")
    if reading_share > 0.5:
        ways.append("`hrseg data cache`")
    advice = " or ".join(ways) or "most goes into augmentation, and more workers bring no more"
    return (
        f"data-bound: {three_digits(wanted)} samples/s wanted, {three_digits(come)} come; {advice}"
    )


def _epochs(sampler: EpochSampler, items: Iterable[T]) -> Iterator[T]:
    """Yield the items of one epoch after the other."""
    for epoch in count():
        sampler.set_epoch(epoch)
        yield from items


def _show(result: Mapping[str, Any]) -> None:
    step, wanted, share = result["train_step"], result["wanted"], result["reading_share"]
    parts = [
        f"{name} {milliseconds(result[name])[0]} ms ({100 * part:.0f} %)"
        for name, part in (("reading", share), ("augmentation", 1 - share))
    ]
    echo(model.header(result), f"a sample in one process: {', '.join(parts)}")
    if step:
        echo(
            f"a training step: {milliseconds(step)[0]} ms for {result['batch']} samples, "
            f"precision {result['precision']}"
        )
    table = model.table_of("data.workers", "samples/s", "of what training takes")
    for workers, rate in result["loader"].items():
        of_wanted = f"{100 * rate / wanted:,.0f} %" if wanted else "-"
        mark = " (the config's)" if int(workers) == result["workers"] else ""
        table.add_row(f"{workers}{mark}", three_digits(rate), of_wanted)
    get_console().print(table)
    note = "; on a CPU, step and workers share it" if result["machine"]["device"] == "cpu" else ""
    echo(
        result["verdict"],
        f"rates of the loader without training{note}; recommended: "
        f"data.workers={result['recommended_workers']}",
    )
