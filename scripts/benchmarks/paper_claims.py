#!/usr/bin/env python3
"""Claims of the HRNet paper (arXiv 1908.07919) at small scale, on CamVid.

    scripts/benchmarks/paper_claims.py --root CAMVID [--steps 500] [--seeds 304 1 2] [--limit 60]
    scripts/benchmarks/paper_claims.py --table

Variants of HRNet-W18-small-v2 train from random weights for a fixed number of steps. Each run is a
call of `hrseg fit` in its own process, with one evaluation at its end (plain protocol, one scale).
Runs are ordered seed by seed. Each finished run is appended to a JSON file and is not repeated.
The runs "in equal time" of a cheaper variant get more steps, by measured times of a step.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from claims_table import BUDGET, RESULTS, VARIANTS, Run, markdown
from rounds import interleaved
from trainings import commit, fit, read_runs, run_script

from hrseg.benchmark.measure import device_of, in_process, machine, multiply_adds, on_one_device
from hrseg.benchmark.model import train_step
from hrseg.checkpoints.loading import build_model
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.training.distributed import place
from hrseg.training.factory import build_data
from hrseg.training.trainer import settle_precision
from hrseg.utils.files import check_output, write_json

# Of the two small networks only this one has stages of several modules, so that `exchange: all`
# and `exchange: stages` differ.
SETTINGS = (
    "model.backbone=hrnet_w18_small_v2", "inference.details=true", "prediction_images=0",
    "loggers=[]", "trainer.max_epochs=-1", "trainer.num_sanity_val_steps=0",
)  # fmt: skip
KEYS = ("variant", "seed", "budget", "seconds")  # of every finished run
ROUNDS, STEPS = 3, 10  # of the measurement of a step
WIDTH = "3"  # pixels, of boundary IoU


def main(words: Sequence[str] | None = None) -> None:
    """Train the missing runs, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="CamVid, in the layout of the documentation")
    parser.add_argument("--steps", type=int, default=BUDGET, help=f"of a run; default {BUDGET}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[304, 1, 2])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=[*VARIANTS], metavar="KEY",
                        help=f"variants to train: {', '.join(VARIANTS)}")  # fmt: skip
    limit = "start no run that would end later than this; default: none"
    parser.add_argument("--limit", type=float, metavar="MINUTES", help=limit)
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of the finished runs")
    parser.add_argument("--table", action="store_true", help="print the tables and train nothing")
    arguments = parser.parse_args(words)
    if arguments.steps < 2:
        parser.error(f"--steps {arguments.steps}: expected at least 2")
    if not arguments.table:
        if arguments.root is None:
            parser.error("--root CAMVID is missing; only --table needs no images")
        train_missing(arguments)
    runs = [run for run in read_runs(arguments.json, KEYS) if run["budget"] == arguments.steps]
    print(markdown(runs))


def train_missing(arguments: argparse.Namespace) -> None:
    """Train the runs that the file of results lacks, seed by seed, within the limit."""
    check_output("--json", arguments.json)
    start = time.monotonic()
    for seed in arguments.seeds:
        for variant in arguments.only:
            key = {"variant": variant, "seed": seed, "budget": arguments.steps}
            runs = [r for r in read_runs(arguments.json, KEYS) if r["budget"] == arguments.steps]
            if any(key.items() <= run.items() for run in runs):
                continue
            end = time.monotonic() - start + max((run["seconds"] for run in runs), default=0)
            if arguments.limit is not None and end > 60 * arguments.limit:
                print(f"stopped before seed {seed}, {variant}: --limit {arguments.limit:g}")
                return
            precision = runs[0]["precision"] if runs else None
            run = key | train(arguments.root, variant, seed, arguments.steps, precision)
            write_json(arguments.json, [*read_runs(arguments.json, KEYS), run])
            scores = f"mIoU {100 * run['miou']:.2f}, boundary IoU {100 * run['boundary_iou']:.2f}"
            print(f"seed {seed}, {variant}: {scores}, {run['seconds']:.0f} s", flush=True)


def train(root: Path, variant: str, seed: int, budget: int, precision: str | None) -> Run:
    """Train and evaluate one variant in a new process.

    Args:
        root: CamVid.
        variant: a key of VARIANTS.
        seed: of all random numbers.
        budget: steps of the variants in equal steps.
        precision: of the Trainer; None: the fastest.

    Returns:
        Scores in 0..1, seconds of the whole command, size of the network, and the machine.

    Raises:
        HrsegError: the training failed.
    """
    config = config_of(root, variant, seed)
    config.trainer["precision"] = precision
    settle_precision(config, place(config.trainer))
    precision = str(config.trainer["precision"])
    equal = equal_time(root, variant, seed, precision) if VARIANTS[variant].equal_time else {}
    steps = round(budget * equal.get("speedup", 1))
    overrides = [
        *overrides_of(root, variant, seed), f"trainer.precision={precision}",
        f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}",
    ]  # fmt: skip
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scores = fit("camvid_w18_small", overrides, Path(folder))
    seconds = round(time.perf_counter() - start, 1)
    boundary = scores["details"]["boundary"][WIDTH]
    return {
        "steps": steps, "seconds": seconds, "precision": precision, "miou": scores["miou"],
        "boundary_iou": boundary["mean_iou"],
        "classes": {
            row["name"]: {"iou": row["iou"], "boundary_iou": near["iou"]}
            for row, near in zip(scores["classes"], boundary["classes"], strict=True)
        },
        **equal, **size_of(config), "machine": machine(device_of(config)), "commit": commit(),
    }  # fmt: skip


def overrides_of(root: Path, variant: str, seed: int) -> list[str]:
    """Return the overrides of the config that make a variant."""
    return [*SETTINGS, f"data.root={root.absolute()}", f"seed={seed}", *VARIANTS[variant].overrides]


def config_of(root: Path, variant: str, seed: int) -> Config:
    """Return the config of a variant."""
    return load_config("camvid_w18_small", overrides_of(root, variant, seed))


def equal_time(root: Path, variant: str, seed: int, precision: str) -> dict[str, Any]:
    """Measure the steps of the default and of a variant by turns.

    Returns:
        The median "seconds_per_step" of both, and "speedup", the steps of the variant in the time
        of one step of the default.
    """
    names = ("default", variant)
    configs = [on_one_device(config_of(root, name, seed)) for name in names]
    functions = {
        name: partial(in_process, train_step, config, precision, STEPS)
        for name, config in zip(names, configs, strict=True)
    }
    _, results = interleaved(functions, ROUNDS)
    default, cheaper = (median(row["seconds"]["median"] for row in results[name]) for name in names)
    return {"seconds_per_step": [default, cheaper], "speedup": default / cheaper}


def size_of(config: Config) -> dict[str, Any]:
    """Return the parameters of a network, and the multiply-adds for one training crop."""
    with torch.device("meta"):
        model = build_model(config, build_data(config))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"parameters": parameters, "macs": multiply_adds(model, config.data.crop_size)}


if __name__ == "__main__":
    run_script(main)
