"""Stored results of an evaluation: scores.json, images.json and masks, validated."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from hrseg.checkpoints.metadata import Name, ProtocolFields, first_problem
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.evaluation.confidence_schema import BinaryScores, Calibration, Count, Ratio
from hrseg.metrics.confusion import count_pairs
from hrseg.training.factory import build_data
from hrseg.utils.channels import as_picture
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import write_json
from hrseg.utils.text import some

T = TypeVar("T")


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ImageRecord:
    """The pixel counts of one image.

    Attributes:
        name: of the image, unique in the data set.
        size: (height, width) of its true mask.
        counts: (true id, predicted id, pixels) of each pair that occurs, without ignored pixels.
    """

    name: Annotated[str, Field(max_length=4096)]
    size: tuple[Count, Count]
    counts: tuple[tuple[Count, Count, Count], ...]

    def matrix(self, num_classes: int) -> NDArray[np.int64]:
        """Return the confusion matrix (K, K), with true classes as rows."""
        matrix = np.zeros((num_classes, num_classes), np.int64)
        for truth, pred, count in self.counts:
            matrix[truth, pred] = count
        return matrix


def make_record(name: str, pred: Array, truth: Array) -> ImageRecord:
    """Return the pixel counts of predicted and true ids, both uint8 (H, W)."""
    pairs = count_pairs(*(torch.from_numpy(ids).flatten() for ids in (pred, truth))).numpy()
    pairs[IGNORE_INDEX] = 0
    counts = tuple((t, p, int(pairs[t, p])) for t, p in np.argwhere(pairs).tolist())
    return ImageRecord(name, (truth.shape[0], truth.shape[1]), counts)


def write_records(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write `images.json` into a folder."""
    rows = [{"name": r.name, "size": r.size, "counts": r.counts} for r in records]
    write_json(folder / "images.json", sorted(rows, key=itemgetter("name")), indent=None)


class Evaluation:
    """An evaluation stored in a folder. Images and masks are read on demand.

    Attributes:
        folder: contains config.yaml, scores.json, images.json and masks/.
        config: of the run.
        scores: the content of scores.json.
        class_names: a name per id.
        palette: an RGB colour per id.
        records: the pixel counts of each image, sorted by name.
        checkpoint: the evaluated file.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder, self.config = folder, config
        self.scores = read_scores(folder / "scores.json")
        self.class_names: list[str] = [row["name"] for row in self.scores["classes"]]
        self.records = read_records(folder / "images.json", len(self.class_names))
        self.checkpoint = Path(self.scores.get("checkpoint", ""))

    @cached_property
    def palette(self) -> list[list[int]]:
        """An RGB colour per id, from the first mask.

        Raises:
            DataError: the first mask is missing or damaged.
        """
        with self._mask(self.records[0].name) as mask:
            flat = mask.getpalette() or []
        return [flat[i : i + 3] for i in range(0, 3 * len(self.class_names), 3)]

    def matrices(self) -> NDArray[np.int64]:
        """Return the correct, the true and the predicted pixels per image and class, (N, K, 3)."""
        totals = np.zeros((len(self.records), len(self.class_names), 3), np.int64)
        for index, record in enumerate(self.records):
            matrix = record.matrix(len(self.class_names))
            totals[index] = np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)], 1)
        return totals

    def image(self, name: str) -> Array:
        """Return the image from the data set as RGB uint8 (H, W, 3); other bands are stretched.

        Raises:
            DataError: the image or the data set is missing.
        """
        pixels = self._dataset.read(self._dataset.names.index(name))[0]
        return as_picture(pixels, self._dataset.channels)

    def truth(self, name: str) -> Array:
        """Return the true ids, uint8 (H, W), 255 if ignored; errors as in `image`."""
        return self._dataset.read(self._dataset.names.index(name))[1]

    def pred(self, name: str) -> Array:
        """Return the predicted ids, uint8 (H, W).

        Raises:
            DataError: the mask is missing or damaged.
        """
        with self._mask(name) as mask:
            return np.array(mask)

    def mask_path(self, name: str) -> Path:
        """Return the path of the predicted mask of an image.

        Raises:
            DataError: the name contains a path.
        """
        path = self.folder / "masks" / f"{name}.png"
        if path.name != f"{name}.png" or "\0" in name:
            raise DataError(
                f"{self.folder}: the image name {name!r} is invalid.\n"
                "Expected: a name without folders. Fix: hrseg validate"
            )
        return path

    @contextmanager
    def _mask(self, name: str) -> Iterator[Image.Image]:
        path = self.mask_path(name)
        try:
            with Image.open(path, formats=("PNG",)) as mask:
                yield mask
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path} is missing or not a readable mask ({error}).\n"
                "Expected: a PNG of the evaluation. Fix: hrseg validate"
            ) from error

    @cached_property
    def _dataset(self) -> SegmentationDataset:
        root, split = Path(self.config.data.root).expanduser(), self.config.data.val_split
        if not root.is_dir():  # or `build_data` would create the synthetic data set
            raise DataError(
                f"data.root={root} does not exist.\n"
                "Expected: the folder of the data set. Fix: data.root=/path"
            )
        dataset = build_data(self.config).dataset(split)
        missing = {record.name for record in self.records} - set(dataset.names)
        if missing:
            raise DataError(
                f"{len(missing)} images of {self.folder} are not in split {split} of "
                f"{self.config.data.root}: {some(sorted(missing))}.\n"
                "Expected: the data set of the evaluation. Fix: data.root=/path"
            )
        return dataset


def open_evaluation(folder: str | Path, overrides: Sequence[str] = ()) -> Evaluation:
    """Return the evaluation stored in a folder.

    Args:
        folder: a run folder, or one of its validate/ folders.
        overrides: `key=value` pairs that change its config, such as `data.root=/elsewhere`.

    Raises:
        ConfigError: the folder has no evaluation, or its files are damaged.
    """
    folder = Path(folder).resolve()
    files = ("config.yaml", "scores.json", "images.json")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ConfigError(
            f"{folder} contains no evaluation: {', '.join(missing)} missing.\n"
            "Expected: a run folder or one of its validate/ folders. "
            "Fix: hrseg validate --checkpoint FILE"
        )
    evaluation = Evaluation(folder, load_config(folder / "config.yaml", overrides))
    if not evaluation.records:
        raise ConfigError(
            f"{folder / 'images.json'} contains no image.\n"
            "Expected: at least one evaluated image. Fix: hrseg validate"
        )
    return evaluation


class ClassScore(BaseModel):
    """Scores of one class in scores.json; `pixels` is its number of true pixels."""

    model_config = ConfigDict(extra="allow")

    name: Name
    iou: Ratio
    accuracy: Ratio
    precision: Ratio = None
    dice: Ratio = None
    pixels: Count


class LeakageSummary(BaseModel):
    """Near neighbours in training, in scores.json; `message` is "" without any."""

    model_config = ConfigDict(extra="allow")

    message: Annotated[str, Field(max_length=100_000)]


class Scores(BaseModel):
    """Schema of scores.json. Unknown keys are kept, because later versions add optional keys."""

    model_config = ConfigDict(extra="allow")

    miou: Ratio
    pixel_accuracy: Ratio
    mean_accuracy: Ratio
    classes: Annotated[list[ClassScore], Field(min_length=1, max_length=255)]
    confusion_matrix: list[list[Count]]
    absent_classes: Literal["skipped", "zero"]
    binary: BinaryScores | None = None
    calibration: Calibration | None = None
    protocol: ProtocolFields | None = None
    checkpoint: Annotated[str, Field(max_length=4096)] | None = None
    leakage: LeakageSummary | None = None


def read_scores(path: Path) -> dict[str, Any]:
    """Return the validated content of a scores.json.

    Raises:
        ConfigError: the file is damaged, or hrseg did not write it.
    """
    scores = _read(path, TypeAdapter(Scores))
    sizes = [len(row) for row in scores.confusion_matrix]
    if sizes != [len(scores.classes)] * len(scores.classes):
        raise _damaged(path, "confusion_matrix: not one row and one column per class")
    return scores.model_dump(exclude_unset=True)


def read_records(path: Path, classes: int) -> list[ImageRecord]:
    """Return the validated content of an images.json with ids below `classes`.

    Raises:
        ConfigError: the file is damaged, or hrseg did not write it.
    """
    records = _read(path, TypeAdapter(list[ImageRecord]))
    for number, record in enumerate(records):
        if any(truth >= classes or pred >= classes for truth, pred, _ in record.counts):
            raise _damaged(path, f"{number}.counts: ids are not below {classes}")
    return records


def _read(path: Path, schema: TypeAdapter[T]) -> T:
    try:
        return schema.validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from error


def _damaged(path: Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{path} is damaged: {problem}.\nExpected: a file written by hrseg. Fix: hrseg validate"
    )
