#!/usr/bin/env python3
"""Settings of `hrseg init` against its former defaults: mIoU after equal training time.

    scripts/benchmarks/init_settings.py --root CAMVID [--minutes 4] [--weights FILE]

Three sets of 40 training and 40 validation images of CamVid: all classes, five classes of which
one (pedestrian) is rare, and a binary set (car). For each seed, both sides start from the same
weights. The number of steps is the time divided by the measured time of a step, so that the
schedule ends with the time; `--steps` sets it, for a machine with other work. Finished runs are
appended to a JSON file and are not repeated.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
import warnings
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pytorch_lightning as pl
from PIL import Image

from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.analysis.suggest_config import inspect_folder, write_config
from hrseg.training.distributed import place
from hrseg.training.factory import build_data, build_task
from hrseg.training.trainer import settle_precision

IMAGES = 40  # of each split
WARM_UP, MEASURED = 2, 8  # steps
NAMES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist", "void",
)  # fmt: skip
RARE = dict(zip(range(12), (0, 1, 1, 2, 2, 3, 1, 1, 1, 4, 1, 5), strict=True))
SETS: dict[str, tuple[dict[int, int], tuple[str, ...], str]] = {
    # name: (id of CamVid -> id, class names, class to report)
    "all classes": ({key: key for key in range(12)}, NAMES, "bicyclist"),
    "rare class": (RARE, ("sky", "thing", "road", "tree", "pedestrian", "void"), "pedestrian"),
    "binary": ({key: 255 * (key == 8) for key in range(12)}, ("background", "car"), "car"),
}
# The keys in which the former config of `hrseg init` differs.
FORMER = {
    "losses": "losses=[{name: cross_entropy}]",
    "class_uniform": "data.class_uniform=0",
    "flip": "data.flip=0.5",
    "batch_size": "data.batch_size=8",
    "crop_size": "data.crop_size=[256,256]",
}
SIDES = {"former": list(FORMER.values()), "init": []} | {
    f"init without {name}": [FORMER[name]] for name in ("losses", "class_uniform", "batch_size")
}


def main() -> None:
    """Train every set, seed and side that is not in the file of results, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", required=True, type=Path, help="CamVid")
    parser.add_argument("--minutes", type=float, default=4.0, help="time of a training")
    parser.add_argument(
        "--steps", type=int, help="number of steps of a training, without --minutes"
    )
    parser.add_argument("--weights", help="initial weights of both sides; default: random")
    parser.add_argument("--seeds", type=int, nargs="+", default=[304, 305])
    parser.add_argument("--sets", nargs="+", choices=SETS, default=[*SETS])
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["former", "init"])
    parser.add_argument(
        "--json", type=Path, default=Path(__file__).parent / "results/init_settings.json"
    )
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    runs = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.sets:
            write_set(arguments.root, Path(folder, name), name)
        for seed in arguments.seeds:
            for name in arguments.sets:
                for side in arguments.sides:
                    key = {
                        "set": name, "side": side, "seed": seed, "weights": arguments.weights,
                        "minutes": None if arguments.steps else arguments.minutes,
                        "budget": arguments.steps,
                    }  # fmt: skip
                    if not any(key.items() <= run.items() for run in runs):
                        runs.append(key | train(Path(folder, name), key))
                        arguments.json.parent.mkdir(exist_ok=True)
                        arguments.json.write_text(json.dumps(runs, indent=1) + "\n")
    chosen = [
        run for run in runs
        if run["budget"] == arguments.steps and run["weights"] == arguments.weights
    ]  # fmt: skip
    print_table(chosen)


def write_set(root: Path, folder: Path, name: str) -> None:
    """Write the images and the masks of a set, evenly chosen from CamVid."""
    ids, names, _ = SETS[name]
    table = np.array([ids[key] for key in range(12)], np.uint8)
    for split in ("train", "val"):
        images = sorted((root / split).glob("*.png"))
        for index in np.linspace(0, len(images) - 1, IMAGES).astype(int):
            image, mask = images[index], root / f"{split}annot" / images[index].name
            for kind, pixels in (
                ("images", np.asarray(Image.open(image))),
                ("masks", table[np.asarray(Image.open(mask))]),
            ):
                path = folder / kind / split / image.name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    (folder / "classes.txt").write_text("\n".join(names))


def train(folder: Path, key: dict[str, Any]) -> dict[str, Any]:
    """Train one side for the given time; return scores, steps and seconds."""
    path = folder / "config.yaml"
    path.write_text(write_config(inspect_folder(folder)))
    overrides = [
        f"model.weights={key['weights'] or 'null'}", f"seed={key['seed']}", "loggers=[]",
        "trainer.max_epochs=-1", "trainer.check_val_every_n_epoch=1000000",
    ]  # fmt: skip
    config = load_config(path, [*overrides, *SIDES[key["side"]]])
    # The fastest step, because other work on the machine only slows a step.
    settle_precision(config, place(config.trainer))
    step = min(_fit(config, WARM_UP + MEASURED, score=False)[1][WARM_UP:])
    steps = key["budget"] or max(2, int(60 * key["minutes"] / step))
    start = time.perf_counter()
    scores = _fit(config, steps, score=True)[0]
    rare = next(row["iou"] for row in scores["classes"] if row["name"] == SETS[key["set"]][2])
    result = {
        "miou": scores["miou"], "class_iou": rare, "steps": steps,
        "seconds_per_step": round(step, 4), "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip
    print(f"{key['set']}, seed {key['seed']}, {key['side']}: {result}", flush=True)
    return result


def _fit(config: Config, steps: int, score: bool) -> tuple[dict[str, Any], list[float]]:
    """Train with the code of `hrseg fit`; return the scores and the seconds of each step."""
    seconds: list[float] = []

    class Clock(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            seconds.append(time.perf_counter())

    pl.seed_everything(config.seed, workers=True, verbose=False)
    data = build_data(config)
    task = build_task(config, data)
    trainer = pl.Trainer(
        **{**config.trainer, "num_sanity_val_steps": 0, "max_steps": steps}, logger=False,
        callbacks=[Clock()], enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(task, data)
    if score:
        trainer.validate(task, data, verbose=False)
    return task.scores, np.diff(seconds).tolist()


def print_table(runs: list[dict[str, Any]]) -> None:
    """Print the scores in %, as means over the seeds and the values of each seed."""
    print("| set | settings | mIoU | seeds | IoU of the class | steps |\n|---|---|---|---|---|---|")
    for name in SETS:
        for side in SIDES:
            group = [run for run in runs if (run["set"], run["side"]) == (name, side)]
            if not group:
                continue
            scores = [100 * run["miou"] for run in group]
            each = ", ".join(f"{score:.2f}" for score in scores)
            rare = mean(100 * (run["class_iou"] or 0) for run in group)
            steps = round(mean(run["steps"] for run in group))
            print(
                f"| {name} | {side} | {mean(scores):.2f} | {each} "
                f"| {SETS[name][2]} {rare:.2f} | {steps} |"
            )


if __name__ == "__main__":
    main()
