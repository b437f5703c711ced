#!/usr/bin/env python3
"""Scores on drives that the training did not see: leave-one-drive-out on CamVid's training images.

    scripts/benchmarks/camvid_drives.py --root CAMVID --config camvid_w18_small [--seeds 304]
    scripts/benchmarks/camvid_drives.py --root CAMVID --config X name=x_ema ema_decay=0.999
    scripts/benchmarks/camvid_drives.py --table

The training images of CamVid come from three drives, its validation images from one of them. So the
validation mIoU rewards a network that memorises that drive. Here two drives train a network, which
is scored on the third at the end of the training. Each finished training is appended to a JSON
file, and is not repeated: the config's name, the drive and the seed identify it. A stopped training
is resumed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

sys.path.insert(0, str(Path(__file__).parents[2]))

from drives_table import DRIVES, RESULTS, markdown
from trainings import commit, fit, read_runs, run_script

from hrseg.benchmark.measure import device_of, machine
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError, DataError
from hrseg.utils.files import check_output, write_json

# Of every finished run.
KEYS = ("name", "config", "overrides", "drive", "seed", "epochs", "miou", "classes")
SETTINGS = ("loggers=[]", "prediction_images=0")


def main(words: Sequence[str] | None = None) -> None:
    """Train the missing runs, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="CamVid, in the layout of the documentation")
    parser.add_argument("--config", default="camvid_w18_small_long", help="default: %(default)s")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes of the config")
    parser.add_argument("--seeds", type=int, nargs="+", default=[304])
    parser.add_argument("--drives", nargs="+", choices=DRIVES, default=DRIVES, metavar="DRIVE",
                        help=f"drives to score on: {', '.join(DRIVES)}")  # fmt: skip
    parser.add_argument("--runs", type=Path, default=Path("runs/camvid_drives"),
                        help="run folders; default: %(default)s")  # fmt: skip
    parser.add_argument("--json", type=Path, default=RESULTS, help="file of the finished runs")
    parser.add_argument("--table", action="store_true", help="print the table and train nothing")
    arguments = parser.parse_intermixed_args(words)
    if not arguments.table:
        if arguments.root is None:
            parser.error("--root CAMVID is missing; only --table needs no images")
        train_missing(arguments)
    print(markdown(read_runs(arguments.json, KEYS)))


def train_missing(arguments: argparse.Namespace) -> None:
    """Train the runs that the file of results lacks, and append them."""
    check_output("--json", arguments.json)
    config = load_config(arguments.config, arguments.overrides)
    epochs = config.trainer.get("max_epochs", -1)
    if epochs < 1:
        raise ConfigError(
            f"{arguments.config}: trainer.max_epochs is {epochs}.\n"
            "Expected: a number of epochs, because only the last one is scored. "
            "Fix: trainer.max_epochs=32"
        )
    runs = arguments.runs.absolute()
    # Other settings are never resumed from the same folder.
    digest = crc32("\n".join([arguments.config, *arguments.overrides]).encode())
    folder = runs / f"{config.name}_{digest:08x}"
    for seed in arguments.seeds:
        for drive in arguments.drives:
            finished = read_runs(arguments.json, KEYS)
            key = {"name": config.name, "seed": seed, "drive": drive}
            check_settings(finished, config.name, arguments.config, arguments.overrides)
            if any(key.items() <= run.items() for run in finished):
                continue
            root = split_drives(arguments.root, drive, runs / "images" / drive)
            overrides = [
                *SETTINGS, *arguments.overrides, f"seed={seed}", f"data.root={root}",
                # Only the last epoch is scored. The best of several would be chosen by the drive.
                f"trainer.check_val_every_n_epoch={epochs}",
            ]  # fmt: skip
            start = time.perf_counter()
            scores = fit(arguments.config, overrides, folder / f"{drive}_{seed}")
            run = key | {
                "config": arguments.config, "overrides": arguments.overrides,
                "epochs": epochs, "miou": scores["miou"],
                "classes": {row["name"]: row["iou"] for row in scores["classes"]},
                "seconds": round(time.perf_counter() - start, 1), "commit": commit(),
                "machine": machine(device_of(config)),
            }  # fmt: skip
            write_json(arguments.json, [*finished, run])
            print(f"{config.name}, seed {seed}, {drive}: {100 * run['miou']:.2f}", flush=True)


def check_settings(
    finished: Sequence[dict[str, Any]], name: str, config: str, overrides: Sequence[str]
) -> None:
    """Raise ConfigError if a finished run of this name had another config or other overrides."""
    for run in finished:
        if run["name"] == name and (run["config"], run["overrides"]) != (config, overrides):
            words = " ".join([run["config"], *run["overrides"]])
            raise ConfigError(
                f"the finished runs of {name} have other settings: {words}\n"
                "Expected: one name for one set of settings. Fix: add name=OTHER"
            )


def split_drives(root: Path, drive: str, folder: Path) -> Path:
    """Link CamVid's training images to a data set whose validation images are one drive.

    Args:
        root: CamVid.
        drive: first part of the names of the validation images.
        folder: receives the layout of CamVid; existing links are replaced.

    Returns:
        The folder.

    Raises:
        DataError: root has no training images of the drive, or only of this drive.
    """
    sides = {"train": 0, "val": 0}
    for image in sorted((root / "train").glob("*.png")):
        side = "val" if image.name.startswith(f"{drive}_") else "train"
        sides[side] += 1
        for suffix in ("", "annot"):
            link = folder / f"{side}{suffix}" / image.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to((root / f"train{suffix}" / image.name).absolute())
    if not all(sides.values()):
        raise DataError(
            f"{root / 'train'}: {sides['val']} images of the drive {drive}, {sides['train']} of "
            f"others.\nExpected: images of the drives {', '.join(DRIVES)}, as in CamVid of 367 "
            "training images. Fix: change --root"
        )
    return folder


if __name__ == "__main__":
    run_script(main)
