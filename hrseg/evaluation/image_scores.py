"""What an evaluation saw, image by image: `images.json`, masks and config beside scores.json."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from PIL import Image

from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.evaluation.results import read_records, read_scores
from hrseg.metrics.confusion import count_pairs
from hrseg.training.callbacks import ClassScores
from hrseg.training.factory import build_data
from hrseg.utils.files import write_json
from hrseg.visualize import indexed


@dataclass(frozen=True)
class ImageRecord:
    """The counts of one image.

    Attributes:
        name: of the image, as the data set tells it from the others.
        size: (height, width) of its truth.
        counts: (true id, predicted id, pixels) of each pair that occurs; ignored pixels left out.
    """

    name: str
    size: tuple[int, int]
    counts: tuple[tuple[int, int, int], ...]

    @property
    def pixels(self) -> int:
        """How many pixels were scored."""
        return sum(count for _, _, count in self.counts)

    def matrix(self, num_classes: int) -> NDArray[np.int64]:
        """Return the confusion matrix (K, K), rows are the truth."""
        matrix = np.zeros((num_classes, num_classes), np.int64)
        for truth, pred, count in self.counts:
            matrix[truth, pred] = count
        return matrix


def record(name: str, pred: Array, truth: Array, ignore_index: int = 255) -> ImageRecord:
    """Return the counts of a prediction (H, W) and its truth, both ids 0..255."""
    pairs = count_pairs(*(torch.from_numpy(ids).flatten() for ids in (pred, truth))).numpy()
    pairs[ignore_index] = 0
    found = np.argwhere(pairs).tolist()
    counts = tuple((t, p, int(pairs[t, p])) for t, p in found)
    return ImageRecord(name, (truth.shape[0], truth.shape[1]), counts)


class ImageScores(ClassScores):
    """ClassScores that keeps what each image came to, wherever it writes scores.json.

    Writes `images.json` and `masks/<name>.png`, the predicted train ids as palette PNGs.
    """

    def __init__(self, folder: str | Path, checkpoint: str | Path) -> None:
        """Write into `folder`; `checkpoint` is the file that the best scores belong to."""
        super().__init__(folder)
        self.folder: Path = Path(folder)
        self.checkpoint = Path(checkpoint).absolute()
        self.records: list[ImageRecord] = []

    @property
    def _fresh(self) -> Path:
        """Where masks wait until it is known whether they belong to the best scores."""
        return self.folder / ".masks"

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the last evaluation."""
        self.records = []
        self._fresh.mkdir(parents=True, exist_ok=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count one image and write its mask."""
        if trainer.sanity_checking:
            return
        pred = outputs["pred"].cpu().numpy()
        seen = record(batch["name"][0], pred, batch["mask"][0].cpu().numpy())
        # An image that only evens out the processes is all ignored; its mask is another's.
        if seen.counts:
            self.records.append(seen)
            palette = cast(list[list[int]], pl_module.palette)
            indexed(pred, palette).save(self._fresh / f"{seen.name}.png", compress_level=1)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gather the images of all processes, then show and write as ClassScores does."""
        if not trainer.sanity_checking and trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, self.records)
            self.records = [seen for part in gathered for seen in part]
        super().on_validation_end(trainer, pl_module)
        if trainer.is_global_zero:
            shutil.rmtree(self._fresh, ignore_errors=True)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave no masks of a validation that did not come to its end."""
        if trainer.is_global_zero:
            shutil.rmtree(self._fresh, ignore_errors=True)

    def write(self, folder: Path, scores: dict[str, Any]) -> None:
        """Write the scores and what they are made of."""
        masks = folder / "masks"
        shutil.rmtree(masks, ignore_errors=True)
        os.replace(self._fresh, masks)
        write_records(folder, self.records)
        super().write(folder, {**scores, "checkpoint": str(self.checkpoint)})


def write_records(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write `images.json`."""
    ordered = sorted(records, key=lambda seen: seen.name)
    write_json(
        folder / "images.json",
        [{"name": r.name, "size": r.size, "counts": r.counts} for r in ordered],
        indent=None,
    )


class Evaluation:
    """An evaluation that lies in a folder.

    Attributes:
        folder: where.
        config: what was evaluated, and on what.
        scores: the content of scores.json.
        class_names: a name per id.
        palette: an RGB colour per id.
        records: the counts of each image, by name.
        checkpoint: what was evaluated.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Read the numbers; images and masks are read when they are asked for."""
        self.folder, self.config = folder, config
        self.scores = read_scores(folder / "scores.json")
        self.class_names: list[str] = [row["name"] for row in self.scores["classes"]]
        self.records = [
            ImageRecord(row["name"], tuple(row["size"]), tuple(map(tuple, row["counts"])))
            for row in read_records(folder / "images.json", len(self.class_names))
        ]
        self.checkpoint = Path(self.scores.get("checkpoint", ""))

    @cached_property
    def palette(self) -> list[list[int]]:
        """An RGB colour per id, as the masks have them."""
        with Image.open(self.mask_path(self.records[0].name), formats=("PNG",)) as mask:
            flat = mask.getpalette() or []
        return [flat[i : i + 3] for i in range(0, 3 * len(self.class_names), 3)]

    def matrices(self) -> NDArray[np.int64]:
        """Return (N, K, 3): pixels of a class that are found, that are true, that are predicted."""
        found = np.zeros((len(self.records), len(self.class_names), 3), np.int64)
        for index, seen in enumerate(self.records):
            for truth, pred, count in seen.counts:
                found[index, truth, 1] += count
                found[index, pred, 2] += count
                if truth == pred:
                    found[index, truth, 0] += count
        return found

    def image(self, name: str) -> Array:
        """Return the image, RGB uint8 (H, W, 3), as the data set reads it.

        Raises:
            DataError: it is not there any more.
        """
        return self._dataset.read(self._index[name])[0]

    def truth(self, name: str) -> Array:
        """Return the true ids (H, W), 255 = ignored; errors as `image`."""
        return self._dataset.read(self._index[name])[1]

    def pred(self, name: str) -> Array:
        """Return the predicted ids (H, W).

        Raises:
            DataError: the mask is missing or damaged.
        """
        path = self.mask_path(name)
        try:
            with Image.open(path, formats=("PNG",)) as mask:
                return np.array(mask)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: no readable mask ({error}).\n"
                "`hrseg validate` writes the masks of an evaluation."
            ) from error

    def mask_path(self, name: str) -> Path:
        """Return where the predicted mask of an image lies.

        Raises:
            DataError: the name leads to another folder, and so is none that hrseg gave.
        """
        path = self.folder / "masks" / f"{name}.png"
        if path.name != f"{name}.png" or "\0" in name:
            raise DataError(f"{self.folder}: {name!r} is no name of an image. Evaluate again.")
        return path

    @cached_property
    def _dataset(self) -> SegmentationDataset:
        root = Path(self.config.data.root).expanduser()
        if not root.is_dir():  # nor is one drawn: what is looked at is another's
            raise DataError(f"data.root: no folder {root}.\nSay where it is: data.root=/path")
        dataset = build_data(self.config).dataset(self.config.data.val_split)
        missing = [seen.name for seen in self.records if seen.name not in dataset.names]
        if missing:
            raise DataError(
                f"{len(missing)} images of {self.folder} are not in split "
                f"{self.config.data.val_split} of {self.config.data.root}, e.g. {missing[0]}\n"
                "Say where the data set is: data.root=/path"
            )
        return dataset

    @cached_property
    def _index(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self._dataset.names)}


def open_evaluation(folder: str | Path, overrides: Sequence[str] = ()) -> Evaluation:
    """Return the evaluation in the folder of a run, or of one of its validations.

    Args:
        folder: holds config.yaml, scores.json, images.json and masks/.
        overrides: `key=value` pairs that change its config, such as `data.root=/elsewhere`.

    Raises:
        ConfigError: no evaluation lies there.
    """
    folder = Path(folder).resolve()
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder} holds no evaluation: no {', '.join(missing)}.\n"
            "Expected a run folder or one of its validate/ folders; "
            "`hrseg validate --checkpoint FILE` makes one."
        )
    evaluation = Evaluation(folder, load_config(folder / "config.yaml", overrides))
    if not evaluation.records:
        raise ConfigError(f"{folder / 'images.json'} holds no image: nothing was scored.")
    return evaluation


_FILES = ("config.yaml", "scores.json", "images.json")
