#!/usr/bin/env python3
"""Effect of pseudo-labels on CamVid with half of the training labels hidden.

    pseudo_labels.py --camvid /data/camvid --out results/ --steps 300

1. `first`: a model is trained on the labelled half.
2. It is calibrated, and labels the other half where its confidence is at least 0.9.
3. `pseudo`: training continues from these weights on both halves.
4. `control`: training continues from the same weights for as many steps on the labelled half.

Finished stages are skipped, so that a stopped call can be repeated. The table has the mIoU of the
last validation of each training, on the true validation labels.
"""

import argparse
import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.cli import main as hrseg

CONFIDENCE = 0.9


def main() -> int:
    """Run the stages that are not finished, and print the scores."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=300, help="of each training")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of the half")
    arguments = parser.parse_args()
    out, camvid = arguments.out.absolute(), arguments.camvid.absolute()
    names = sorted(path.name for path in (camvid / "train").glob("*.png"))
    labelled = set(random.Random(arguments.seed).sample(names, len(names) // 2))
    hidden = [name for name in names if name not in labelled]
    link(camvid, out / "half", sorted(labelled), {})
    first = train(out, "first", out / "half", arguments.steps)
    masks = out / "labels" / "camvid"
    if not (out / "labels" / "finished").is_file():
        label(first, [camvid / "train" / name for name in hidden], out / "labels")
    pairs = {name: masks / name for name in hidden}
    link(camvid, out / "both", names, pairs)
    for name, data in (("control", out / "half"), ("pseudo", out / "both")):
        train(out, name, data, arguments.steps, first / "checkpoints" / "best.ckpt")
    show(out, camvid, hidden)
    return 0


def link(camvid: Path, root: Path, names: list[str], masks: dict[str, Path]) -> None:
    """Make a data set of links to these images, with the true masks or those of `masks`."""
    for split in ("train", "val"):
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            present = names if split == "train" else [p.name for p in (camvid / split).iterdir()]
            for name in present:
                target = camvid / folder / name
                target = masks.get(name, target) if folder == "trainannot" else target
                if not (root / folder / name).is_symlink():
                    (root / folder / name).symlink_to(target)


def train(out: Path, name: str, data: Path, steps: int, weights: Path | None = None) -> Path:
    """Train by the shipped config unless the run is finished, and return its folder."""
    home = out / "runs" / name
    if (home / "finished").is_file():
        return home / "latest"
    shutil.rmtree(home, ignore_errors=True)
    options = [f"data.root={data}", "data.workers=0", f"runs={out / 'runs'}", f"name={name}"]
    options += ["trainer.max_epochs=-1", f"trainer.max_steps={steps}", "loggers=[]"]
    options += ["trainer.check_val_every_n_epoch=null", f"trainer.val_check_interval={steps}"]
    options += [f"model.weights={weights}"] if weights else []
    if hrseg(["fit", "--config", "camvid_w18_small", *options]):
        sys.exit(1)
    (home / "finished").touch()
    return home / "latest"


def label(run: Path, images: list[Path], out: Path) -> None:
    """Calibrate a run, and write the pseudo-labels of images."""
    paths = [str(path) for path in images]
    options = ["--checkpoint", str(run), "--out", str(out), "--no-overlays"]
    if hrseg(["calibrate", str(run)]):
        sys.exit(1)
    if hrseg(["predict", *paths, *options, "--pseudo", str(CONFIDENCE)]):
        sys.exit(1)
    (out / "camvid").mkdir(exist_ok=True)
    for path in images:  # CamVid ignores id 11
        mask = np.array(Image.open(out / "masks" / path.name))
        Image.fromarray(np.where(mask == 255, 11, mask)).save(out / "camvid" / path.name)
    (out / "finished").touch()


def show(out: Path, camvid: Path, hidden: list[str]) -> None:
    """Print the share and the accuracy of the pseudo-labels, and the scores of the runs."""
    kept = correct = scored = 0
    for name in hidden:
        pseudo = np.array(Image.open(out / "labels" / "masks" / name))
        truth = np.array(Image.open(camvid / "trainannot" / name))
        valid = truth < 11
        sure = valid & (pseudo != 255)
        scored, kept = scored + int(valid.sum()), kept + int(sure.sum())
        correct += int((pseudo == truth)[sure].sum())
    print(f"pseudo-labels: {kept / scored:.1%} of the pixels, {correct / kept:.2%} correct")
    for name in ("first", "control", "pseudo"):
        scores = json.loads((out / "runs" / name / "latest" / "scores.json").read_text())
        print(f"{name}: mIoU {100 * scores['miou']:.2f}")


if __name__ == "__main__":
    sys.exit(main())
