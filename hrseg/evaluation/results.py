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

from hrseg.checkpoints.metadata import Integer, Name, Number, ProtocolFields, first_problem
from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.metrics.confusion import count_pairs
from hrseg.training.factory import build_data
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import write_json

T = TypeVar("T")
_Count = Annotated[Integer, Field(ge=0, lt=2**53)]  # pixels: the integers of a page's script
_Ratio = Annotated[Number, Field(ge=0, le=1)] | None


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class ImageRecord:
    """The counts of one image.

    Attributes:
        name: of the image, unique in the data set.
        size: (height, width) of its truth.
        counts: (true id, predicted id, pixels) of each pair that occurs, without ignored pixels.
    """

    name: Annotated[str, Field(max_length=4096)]
    size: tuple[_Count, _Count]
    counts: tuple[tuple[_Count, _Count, _Count], ...]

    def matrix(self, num_classes: int) -> NDArray[np.int64]:
        """Return the confusion matrix (K, K), rows are the truth."""
        matrix = np.zeros((num_classes, num_classes), np.int64)
        for truth, pred, count in self.counts:
            matrix[truth, pred] = count
        return matrix


def record(name: str, pred: Array, truth: Array) -> ImageRecord:
    """Return the counts of a prediction (H, W) and its truth, both ids 0..255."""
    pairs = count_pairs(*(torch.from_numpy(ids).flatten() for ids in (pred, truth))).numpy()
    pairs[IGNORE_INDEX] = 0
    counts = tuple((t, p, int(pairs[t, p])) for t, p in np.argwhere(pairs).tolist())
    return ImageRecord(name, (truth.shape[0], truth.shape[1]), counts)


def write_records(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write `images.json`."""
    rows = [{"name": seen.name, "size": seen.size, "counts": seen.counts} for seen in records]
    write_json(folder / "images.json", sorted(rows, key=itemgetter("name")), indent=None)


class Evaluation:
    """An evaluation stored in a folder.

    Attributes:
        folder: of config.yaml, scores.json, images.json and masks/.
        config: of the run, with its data set.
        scores: the content of scores.json.
        class_names: a name per id.
        palette: an RGB colour per id.
        records: the counts of each image, by name.
        checkpoint: the evaluated file.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        """Read the numbers; images and masks are read on demand."""
        self.folder, self.config = folder, config
        self.scores = read_scores(folder / "scores.json")
        self.class_names: list[str] = [row["name"] for row in self.scores["classes"]]
        self.records = read_records(folder / "images.json", len(self.class_names))
        self.checkpoint = Path(self.scores.get("checkpoint", ""))

    @cached_property
    def palette(self) -> list[list[int]]:
        """An RGB colour per id, as the masks have them.

        Raises:
            DataError: the first mask is missing or damaged.
        """
        with self._mask(self.records[0].name) as mask:
            flat = mask.getpalette() or []
        return [flat[i : i + 3] for i in range(0, 3 * len(self.class_names), 3)]

    def matrices(self) -> NDArray[np.int64]:
        """Return (N, K, 3): the found, the true and the predicted pixels of each class."""
        totals = np.zeros((len(self.records), len(self.class_names), 3), np.int64)
        for index, seen in enumerate(self.records):
            matrix = seen.matrix(len(self.class_names))
            totals[index] = np.stack([matrix.diagonal(), matrix.sum(1), matrix.sum(0)], 1)
        return totals

    def image(self, name: str) -> Array:
        """Return the image, RGB uint8 (H, W, 3), as the data set reads it.

        Raises:
            DataError: it is missing.
        """
        return self._dataset.read(self._dataset.names.index(name))[0]

    def truth(self, name: str) -> Array:
        """Return the true ids (H, W), 255 = ignored; errors as `image`."""
        return self._dataset.read(self._dataset.names.index(name))[1]

    def pred(self, name: str) -> Array:
        """Return the predicted ids (H, W).

        Raises:
            DataError: the mask is missing or damaged.
        """
        with self._mask(name) as mask:
            return np.array(mask)

    def mask_path(self, name: str) -> Path:
        """Return the path of the predicted mask of an image.

        Raises:
            DataError: the name leads to another folder.
        """
        path = self.folder / "masks" / f"{name}.png"
        if path.name != f"{name}.png" or "\0" in name:
            raise DataError(
                f"{self.folder}: {name!r} is not the name of an image. Fix: `hrseg validate`"
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
                f"{path}: no readable mask ({error}).\n"
                "`hrseg validate` writes the masks of an evaluation."
            ) from error

    @cached_property
    def _dataset(self) -> SegmentationDataset:
        root, split = Path(self.config.data.root).expanduser(), self.config.data.val_split
        if not root.is_dir():  # `build_data` would draw the built-in scenes
            raise DataError(f"data.root: no folder {root}.\nFix: data.root=/path")
        dataset = build_data(self.config).dataset(split)
        missing = {seen.name for seen in self.records} - set(dataset.names)
        if missing:
            raise DataError(
                f"{len(missing)} images of {self.folder} are not in split {split} of "
                f"{self.config.data.root}, e.g. {min(missing)}\n"
                "Fix: data.root=/path of the data set"
            )
        return dataset


def open_evaluation(folder: str | Path, overrides: Sequence[str] = ()) -> Evaluation:
    """Return the evaluation in the folder of a run, or of one of its validations.

    `overrides` are `key=value` pairs that change its config, such as `data.root=/elsewhere`.

    Raises:
        ConfigError: no evaluation in the folder.
    """
    folder = Path(folder).resolve()
    files = ("config.yaml", "scores.json", "images.json")
    if missing := [name for name in files if not (folder / name).is_file()]:
        raise ConfigError(
            f"{folder} holds no evaluation: no {', '.join(missing)}.\n"
            "Expected a run folder or one of its validate/ folders; "
            "`hrseg validate --checkpoint FILE` makes one."
        )
    evaluation = Evaluation(folder, load_config(folder / "config.yaml", overrides))
    if not evaluation.records:
        raise ConfigError(f"{folder / 'images.json'} holds no image: nothing was scored.")
    return evaluation


class ClassScore(BaseModel):
    """A row of scores.json: one class, with its number of true pixels."""

    model_config = ConfigDict(extra="allow")

    name: Name
    iou: _Ratio
    accuracy: _Ratio
    pixels: _Count


class Scores(BaseModel):
    """The content of scores.json. Unknown keys are kept: later versions add optional ones."""

    model_config = ConfigDict(extra="allow")

    miou: _Ratio
    pixel_accuracy: _Ratio
    mean_accuracy: _Ratio
    classes: Annotated[list[ClassScore], Field(min_length=1, max_length=255)]
    confusion_matrix: list[list[_Count]]
    absent_classes: Literal["skipped", "zero"]
    protocol: ProtocolFields | None = None
    checkpoint: Annotated[str, Field(max_length=4096)] | None = None


def read_scores(path: Path) -> dict[str, Any]:
    """Return the validated content of a scores.json.

    Raises:
        ConfigError: damaged, or not written by hrseg.
    """
    scores = _read(path, TypeAdapter(Scores))
    sizes = [len(row) for row in scores.confusion_matrix]
    if sizes != [len(scores.classes)] * len(scores.classes):
        raise _damaged(path, "confusion_matrix: expected a row and a column per class")
    return scores.model_dump(exclude_unset=True)


def read_records(path: Path, classes: int) -> list[ImageRecord]:
    """Return the content of an images.json, whose ids are below `classes`.

    Raises:
        ConfigError: damaged, or not written by hrseg.
    """
    records = _read(path, TypeAdapter(list[ImageRecord]))
    for number, seen in enumerate(records):
        if any(truth >= classes or pred >= classes for truth, pred, _ in seen.counts):
            raise _damaged(path, f"{number}.counts: expected ids below {classes}")
    return records


def _read(path: Path, schema: TypeAdapter[T]) -> T:
    try:
        return schema.validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from error


def _damaged(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path} is damaged: {problem}.\nEvaluate again: hrseg validate.")
