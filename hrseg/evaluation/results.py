"""Stored results of an evaluation: scores.json, images.json and masks, validated."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

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


def record(name: str, pred: Array, truth: Array, ignore_index: int = IGNORE_INDEX) -> ImageRecord:
    """Return the counts of a prediction (H, W) and its truth, both ids 0..255."""
    pairs = count_pairs(*(torch.from_numpy(ids).flatten() for ids in (pred, truth))).numpy()
    pairs[ignore_index] = 0
    found = np.argwhere(pairs).tolist()
    counts = tuple((t, p, int(pairs[t, p])) for t, p in found)
    return ImageRecord(name, (truth.shape[0], truth.shape[1]), counts)


def write_records(folder: Path, records: Sequence[ImageRecord]) -> None:
    """Write `images.json`."""
    ordered = sorted(records, key=lambda seen: seen.name)
    write_json(
        folder / "images.json",
        [{"name": r.name, "size": r.size, "counts": r.counts} for r in ordered],
        indent=None,
    )


_FILES = ("config.yaml", "scores.json", "images.json")


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
        self.records = read_records(folder / "images.json", len(self.class_names))
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


_RECORDS = TypeAdapter(list[ImageRecord])


def read_scores(path: Path) -> dict[str, Any]:
    """Return the validated content of a scores.json.

    Raises:
        ConfigError: damaged, or not written by hrseg.
    """
    try:
        scores = Scores.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from error
    sizes = [len(row) for row in scores.confusion_matrix]
    if sizes != [len(scores.classes)] * len(scores.classes):
        raise _damaged(path, "confusion_matrix: expected a row and a column per class")
    return scores.model_dump(exclude_unset=True)


def read_records(path: Path, classes: int) -> list[ImageRecord]:
    """Return the content of an images.json, whose ids are below `classes`.

    Raises:
        ConfigError: damaged, or not written by hrseg.
    """
    try:
        records = _RECORDS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise _damaged(path, first_problem(error)) from error
    for number, seen in enumerate(records):
        if any(truth >= classes or pred >= classes for truth, pred, _ in seen.counts):
            raise _damaged(path, f"{number}.counts: expected ids below {classes}")
    return records


def _damaged(path: Path, problem: str) -> ConfigError:
    return ConfigError(f"{path} is damaged: {problem}.\nEvaluate again: hrseg validate.")
