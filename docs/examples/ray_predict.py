"""Ray Data recipe: masks of images, predicted by several workers.

python docs/examples/ray_predict.py photos/ predictions/ runs/my_data/latest --workers 2
"""

import argparse
from pathlib import Path
from typing import Any

import ray

import hrseg
from hrseg.errors import DataError, HrsegError
from hrseg.inference.inputs import find_sources


class MaskWriter:
    """Write the masks of a batch of paths. Each worker loads the model once.

    The batch contains paths, not the pixels of `ray.data.read_images`: hrseg then decodes EXIF
    orientation, palettes and 16 bits as `hrseg predict` does.
    """

    def __init__(self, checkpoint: str, device: str) -> None:
        self.predictor = hrseg.load(checkpoint, device)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add the column `fault` to a batch with the columns `image` and `mask`."""
        batch["fault"] = list(map(self.write, batch["image"], batch["mask"]))
        return batch

    def write(self, image: str, mask: str) -> str:
        """Write a mask; return the error of an unreadable image, or ""."""
        try:
            self.predictor.predict(image).save(mask)
        except DataError as error:
            return str(error)
        return ""


def main() -> int:
    """Predict all images; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", help="folder of the images")
    parser.add_argument("out", type=Path, help="folder of the results")
    parser.add_argument("checkpoint", type=Path, help="run folder or checkpoint")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--gpus-per-worker", type=float, default=0)
    options = parser.parse_args()
    try:
        sources = find_sources([options.images], leave_out=options.out)
        hrseg.load(options.checkpoint)  # fails here rather than in each worker
    except HrsegError as error:
        parser.error(str(error))
    masks = options.out.absolute() / "masks"
    rows = [
        {"image": str(source.path.absolute()), "mask": str(masks / f"{source.name}.png")}
        for source in sources
        if source.kind == "image"  # no videos and no huge images
    ]
    device = "cuda" if options.gpus_per_worker else "cpu"
    results = ray.data.from_items(rows).map_batches(
        MaskWriter,
        fn_constructor_args=(str(options.checkpoint.absolute()), device),
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=options.workers),
        num_gpus=options.gpus_per_worker,
    )
    faults = [row["fault"] for row in results.iter_rows() if row["fault"]]
    print(*faults, f"{len(rows) - len(faults)} masks: {masks}", sep="\n")
    return DataError.exit_code if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
