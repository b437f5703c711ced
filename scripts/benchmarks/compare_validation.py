#!/usr/bin/env python3
"""Speed of `hrseg validate` on CamVid val, compared with the authors' way, each a whole process.

    compare_validation.py RUN --root CAMVID [--pairs 7] [--json F]

hrseg runs the command, in the precision that it chooses: start-up, scores, masks, pictures, search
for leaked images and report. The authors' way reads, predicts and counts image by image in NCHW and
float32, without any file as result. Keys of the result:
    ratio, spread: the authors' seconds divided by hrseg's, median and range over alternating pairs.
    after_imports: the same ratio of the medians, without the seconds of importing the libraries.
    miou: mIoU of each, [hrseg's, the authors'].
"""

import argparse
import json
import statistics
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rounds import interleaved, ratio

IMPORTS = {
    "hrseg": "import hrseg.commands._scoring",
    "authors_way": "import cv2, numpy, torch",
}


def main() -> None:
    """Run both in turn, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder with trained weights")
    parser.add_argument("--root", type=Path, required=True, help="CamVid in the layout of README")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--authors-way", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.authors_way:
        print(authors_validation(arguments.run, arguments.root))
        return
    own = [sys.executable, __file__, str(arguments.run), "--root", str(arguments.root)]
    command = [sys.executable, "-m", "hrseg", "validate", "--checkpoint", str(arguments.run)]
    command += [f"data.root={arguments.root}", "inference.protocol=plain"]
    functions = {
        "hrseg": lambda: hrseg_miou(output(command)),
        "authors_way": lambda: float(output([*own, "--authors-way"])),
    }
    interleaved(functions, 1)  # warm-up of the file cache
    seconds, miou = interleaved(functions, arguments.pairs)
    imports, _ = interleaved(
        {name: partial(output, [sys.executable, "-c", code]) for name, code in IMPORTS.items()},
        arguments.pairs,
    )
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    rest = {name: medians[name] - statistics.median(imports[name]) for name in medians}
    report = {
        **ratio(seconds["authors_way"], seconds["hrseg"]),
        "seconds": medians,
        "import_seconds": {name: statistics.median(times) for name, times in imports.items()},
        "after_imports": rest["authors_way"] / rest["hrseg"],
        "miou": [miou["hrseg"][0], miou["authors_way"][0]],
        "pairs": arguments.pairs,
    }
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def output(command: list[str]) -> str:
    """Run a process, and return its output."""
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def hrseg_miou(text: str) -> float:
    """Return the mIoU of the scores that `hrseg validate` wrote."""
    path = next(line for line in text.splitlines() if line.startswith("scores: "))
    return float(json.loads(Path(path.removeprefix("scores: ")).read_text())["miou"])


def authors_validation(run: Path, root: Path) -> float:
    """Return the mIoU on the validation images, scored one by one."""
    import cv2
    import numpy as np
    import torch

    from hrseg.checkpoints.loading import load_model
    from hrseg.metrics.confusion import mean_iou
    from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD
    from hrseg.utils.constants import IGNORE_INDEX
    from tests.oracles import authors_way

    model = load_model(run)[0].eval()
    total = np.zeros(())
    with torch.inference_mode():
        for path in sorted((root / "val").glob("*.png")):
            pixels = cv2.imread(str(path))[:, :, ::-1].astype(np.float32) / 255
            pixels = (pixels - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
            ids = cv2.imread(str(root / "valannot" / path.name), cv2.IMREAD_GRAYSCALE)
            ids[ids == 11] = IGNORE_INDEX  # void
            image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
            logits = model.outputs(image)["out"]
            total = total + authors_way.confusion(logits, ids.astype(np.int64))
    return mean_iou(torch.from_numpy(total).long())


if __name__ == "__main__":
    main()
