#!/usr/bin/env python3
"""Time and memory of tiled prediction of large images, and agreement at the seams.

    big_image.py --sizes 5000 10000 20000       a generated square TIFF of each size
    big_image.py --agreement RUN --images DIR   tiles compared with the whole image, 2048x1024

Each size runs in a new process, so that its peak of memory is independent.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrseg.benchmark.measure import PeakMemory, in_process, timed

SEAM = 16  # pixels on each side of a seam


def main() -> None:
    """Run the measurement, and print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", nargs="+", metavar="SIDE or HxW", default=[])
    parser.add_argument("--agreement", type=Path, metavar="RUN")
    parser.add_argument("--images", type=Path, help="folder of photos for --agreement")
    parser.add_argument("--tile", type=int)
    parser.add_argument("--overlap", type=int)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--folder", type=Path, help="folder for the TIFFs; default: a new one")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    if arguments.agreement:
        tiles = arguments.tile or 512, arguments.overlap or 128
        report = agreement(arguments.agreement, arguments.images, *tiles)
    else:
        report = cost(arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1))


def cost(arguments: argparse.Namespace) -> list[dict[str, float]]:
    """Predict a generated image of each size, each in a new process."""
    rows = []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for text in arguments.sizes:
            height, _, width = text.partition("x")
            size = int(height), int(width or height)
            source, target = Path(folder, "image.tif"), Path(folder, "mask.tif")
            write_image(source, size)
            tiles = arguments.tile or 1024, arguments.overlap or 256
            figures = in_process(predict, source, target, arguments.classes, *tiles)
            row = {"height": size[0], "width": size[1], **figures}
            row["megapixels_per_second"] = size[0] * size[1] / 1e6 / row["seconds"]
            rows.append(row)
            print(
                f"{size[0]} x {size[1]}: {row['seconds']:.0f} s, "
                f"{row['megapixels_per_second']:.2f} Mpx/s, peak {row['peak_mib']:.0f} MiB "
                f"({row['mask_mib']:.1f} MiB mask)",
                flush=True,
            )
    return rows


def write_image(path: Path, size: tuple[int, int]) -> None:
    """Write smooth noise as a tiled TIFF, in bands of rows."""
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.windows import Window

    warnings.simplefilter("ignore", NotGeoreferencedWarning)

    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 3}
    profile |= {"dtype": "uint8", "tiled": True, "blockxsize": 512, "blockysize": 512}
    generator = np.random.default_rng(0)
    with (
        rasterio.Env(GDAL_CACHEMAX=2**26),
        rasterio.open(path, "w", compress="deflate", BIGTIFF="IF_SAFER", **profile) as file,
    ):
        for top in range(0, size[0], 512):
            count = min(512, size[0] - top)
            noise = generator.integers(0, 256, (9, size[1] // 64 + 1, 3), np.uint8)
            band = cv2.resize(noise, (size[1], count), interpolation=cv2.INTER_CUBIC)
            file.write(np.moveaxis(band, -1, 0), window=Window(0, top, size[1], count))


def predict(
    source: Path, target: Path, classes: int, tile: int, overlap: int
) -> dict[str, float | None]:
    """Predict one image with a small HRNet, and return seconds, peak memory and the mask's size."""
    import torch

    import hrseg
    from hrseg.config.protocols import Protocol
    from hrseg.inference.large_images import predict_big
    from hrseg.inference.predictor import Predictor
    from hrseg.visualize import default_palette

    memory = PeakMemory(torch.device("cpu"))
    torch.manual_seed(0)
    metadata = {
        "class_names": [str(index) for index in range(classes)],
        "palette": [list(color) for color in default_palette(classes)],
        "flip_pairs": [],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "protocol": Protocol().to_dict(),
    }
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=classes)
    torch.nn.init.normal_(model.head.last_layer[-1].weight)
    predictor = Predictor(model, metadata)
    seconds: list[float] = []
    with timed(seconds):
        predict_big(predictor, source, target, tile, overlap)
    mask = target.stat().st_size / 2**20
    return {"seconds": seconds[0], "peak_mib": memory.read()["peak_mib"], "mask_mib": mask}


def agreement(run: Path, photos: Path, tile: int, overlap: int) -> list[dict[str, float]]:
    """Compare tiled with whole prediction on mosaics and enlargements of photos."""
    import hrseg
    from hrseg.inference.tiling import predict_bands

    predictor = hrseg.load(run).with_protocol("plain")
    rows = []
    for name, image in pictures(sorted(photos.glob("*.png"))):
        whole = predictor.segment(image).mask
        bands = predict_bands(
            predictor.evaluator, lambda a, b, i=image: i[a:b], image.shape[:2], tile, overlap
        )
        equal = np.concatenate([ids for _, ids in bands]) == whole
        seams = np.zeros(equal.shape, bool)
        for axis, length in enumerate(equal.shape):
            for start in range(tile - overlap, length - overlap, tile - overlap):
                middle = start + overlap // 2
                seams.swapaxes(0, axis)[middle - SEAM : middle + SEAM] = True
        row = {"agreement": float(equal.mean()), "at_seams": float(equal[seams].mean())}
        rows.append({"picture": name, **row})
        print(f"{name}: same class on {100 * row['agreement']:.2f} % of the pixels, "
              f"{100 * row['at_seams']:.2f} % within {SEAM} pixels of a seam")  # fmt: skip
    return rows


def pictures(paths: Sequence[Path]) -> list[tuple[str, NDArray[np.uint8]]]:
    """Return two mosaics and three enlargements, 2048x1024 RGB."""
    photos = [cv2.imread(str(path))[..., ::-1] for path in paths]
    images = []
    for first in (0, len(photos) // 2):
        rows = [np.hstack(photos[first + i : first + i + 5]) for i in (0, 5, 10)]
        images.append((f"mosaic from {paths[first].name}", np.vstack(rows)[:1024, :2048]))
    for index in np.linspace(0, len(photos) - 1, 3).astype(int):
        large = cv2.resize(photos[index], (2048, 1536), interpolation=cv2.INTER_CUBIC)
        images.append((f"enlarged {paths[index].name}", large[256:1280]))
    return [(name, np.ascontiguousarray(image)) for name, image in images]


if __name__ == "__main__":
    main()
