#!/usr/bin/env python3
"""Recall and precision of the search for near-duplicates, by radius of the perceptual hash.

    leakage.py --images CAMVID/train
    leakage.py                                       150 drawn scenes

Copies of every fifth image are changed, and compared with the originals. False neighbours are
pairs of images whose names begin differently: other drives of CamVid, or other scenes.
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.data.analysis.signatures import SIMILARITY, Floats, hashes, mirrored, signature
from hrseg.data.images import read_image
from hrseg.data.synthetic.scene import generate_scene

Array = NDArray[np.uint8]
RADII = (4, 6, 8, 10, 12, 14, 16)


def jpeg(image: Array, quality: int) -> Array:
    """Return the image after a JPEG compression."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def resized(image: Array, factor: float) -> Array:
    """Return the image with its sides multiplied by a factor."""
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=kind), np.uint8)


def cropped(image: Array, share: float) -> Array:
    """Return the image without a share of its rows and columns, at the bottom right."""
    height, width = (round(side * (1 - share)) for side in image.shape[:2])
    return image[:height, :width]


CHANGES: dict[str, Callable[[Array], Array]] = {
    "JPEG, quality 50": lambda image: jpeg(image, 50),
    "JPEG, quality 10": lambda image: jpeg(image, 10),
    "half size": lambda image: resized(image, 0.5),
    "1.5 times the size": lambda image: resized(image, 1.5),
    "brightness +10 %": lambda image: np.minimum(image * 1.1, 255).astype(np.uint8),
    "brightness -10 %": lambda image: (image * 0.9).astype(np.uint8),
    "crop by 2 %": lambda image: cropped(image, 0.02),
    "crop by 5 %": lambda image: cropped(image, 0.05),
    "crop by 10 %": lambda image: cropped(image, 0.1),
    "mirrored": lambda image: image[:, ::-1].copy(),
}


def main() -> None:
    """Print a Markdown table: recall by change, and precision, for each radius."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="folder of images; default: drawn scenes")
    folder = parser.parse_args().images
    paths = sorted(folder.iterdir()) if folder else []
    images = [read_image(path) for path in paths]
    images = images or [generate_scene(0, index, (192, 256))[0] for index in range(150)]
    everything = np.stack([signature(image) for image in images])
    drives = np.array([path.name.split("_")[0] for path in paths] or range(len(images)))
    chosen = range(0, len(images), 5)
    print(f"| correlation at least {SIMILARITY} | " + " | ".join(map(str, RADII)) + " |")
    print("|---|" + "---|" * len(RADII))
    total = np.zeros(len(RADII), np.int64)
    for name, change in CHANGES.items():
        copies = np.stack([signature(change(images[index])) for index in chosen])
        hits = np.array([match(copies, everything[list(chosen)], r).diagonal() for r in RADII])
        total += hits.sum(1)
        print(
            f"| recall: {name} | " + " | ".join(f"{100 * hit.mean():.0f} %" for hit in hits) + " |"
        )
    other = drives[:, None] != drives
    false = np.array([(match(everything, everything, r) & other).sum() // 2 for r in RADII])
    print(f"| false pairs of {other.sum() // 2:,} | " + " | ".join(map(str, false)) + " |")
    by_hash = np.array([(match(everything, everything, r, -1) & other).sum() // 2 for r in RADII])
    print("| false pairs by the hash only | " + " | ".join(map(str, by_hash)) + " |")
    precision = total / np.maximum(1, total + false)
    print("| precision | " + " | ".join(f"{100 * p:.1f} %" for p in precision) + " |")


def match(
    rows: Floats, columns: Floats, radius: int, similarity: float = SIMILARITY
) -> NDArray[np.bool_]:
    """Return which signatures (N, 64) and (M, 64) are near, mirrored or not: (N, M)."""
    near = np.zeros((len(rows), len(columns)), bool)
    for turned in (rows, mirrored(rows)):
        bits = np.bitwise_count(hashes(turned)[:, None] ^ hashes(columns))
        near |= (bits <= radius) & (turned @ columns.T >= similarity)
    return near


if __name__ == "__main__":
    main()
