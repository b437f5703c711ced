"""Stored results of an evaluation: scores.json, images.json and masks, validated."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hrseg.config.loader import load_config
from hrseg.config.protocols import Protocol
from hrseg.config.schema import Config
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.images import Array
from hrseg.errors import ConfigError, DataError
from hrseg.metrics.confusion import count_pairs
from hrseg.training.factory import build_data
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import write_json
from hrseg.utils.text import one_line


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


_COUNT = 2**53  # pixels: what a page can count


def read_scores(path: Path) -> dict[str, Any]:
    """Return the content of a scores.json.

    Raises:
        ConfigError: damaged, or not what hrseg writes.
    """
    scores = _read_json(path)
    missing = [key for key in _SCORES if not isinstance(scores, dict) or key not in scores]
    wrong = missing or [key for key, fits in _SCORES.items() if not fits(scores[key])]
    if not wrong:
        size = len(scores["classes"])
        rows = scores["confusion_matrix"]
        wrong = ["confusion_matrix"] if [len(row) for row in rows] != [size] * size else []
    wrong += [key for key, fits in _OPTIONAL.items() if not wrong and not fits(scores.get(key))]
    if wrong:
        raise _damaged(path, f"{wrong[0]} is not what it should be")
    return dict(scores)


def read_records(path: Path, classes: int) -> list[dict[str, Any]]:
    """Return the rows of an images.json: name, size, counts by pairs of `classes` classes.

    Raises:
        ConfigError: damaged, or not what hrseg writes.
    """
    rows = _read_json(path)
    if not isinstance(rows, list):
        raise _damaged(path, "it is no list")
    for number, row in enumerate(rows):
        if not (isinstance(row, dict) and _is_record(row, classes)):
            raise _damaged(path, f"image {number} is not what it should be")
    return rows


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON")


def _damaged(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} is damaged: {what}.\nEvaluate again: hrseg validate.")


def _is_record(row: dict[str, Any], classes: int) -> bool:
    name, size, counts = row.get("name"), row.get("size"), row.get("counts")
    if not isinstance(name, str) or not isinstance(size, list) or not isinstance(counts, list):
        return False
    return (
        len(name) <= 255
        and len(size) == 2
        and all(_is_count(side) for side in size)
        and all(isinstance(count, list) and _is_pair(count, classes) for count in counts)
    )


def _is_pair(count: list[Any], classes: int) -> bool:
    return len(count) == 3 and all(map(_is_count, count)) and max(count[:2]) < classes


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _COUNT


def _is_ratio(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value <= 1)


def _are_classes(value: Any) -> bool:
    return isinstance(value, list) and 0 < len(value) <= 255 and all(map(_is_class, value))


def _is_class(row: Any) -> bool:
    if not isinstance(row, dict):
        return False
    name = row.get("name")
    named = isinstance(name, str) and len(name) <= 200 and one_line(name) == name
    ratios = [row.get("iou", "missing"), row.get("accuracy", "missing")]
    return named and all(map(_is_ratio, ratios)) and _is_count(row.get("pixels"))


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(row, list) and all(map(_is_count, row)) for row in value
    )


def _is_protocol(value: Any) -> bool:
    try:
        Protocol(**(value or {}))
    except (TypeError, ConfigError):
        return False
    return isinstance((value or {}).get("name", ""), str)


_SCORES: dict[str, Callable[[Any], bool]] = {
    "miou": _is_ratio,
    "pixel_accuracy": _is_ratio,
    "mean_accuracy": _is_ratio,
    "classes": _are_classes,
    "confusion_matrix": _is_matrix,
    "absent_classes": lambda value: value in ("skipped", "zero"),
}
_OPTIONAL: dict[str, Callable[[Any], bool]] = {
    "protocol": _is_protocol,
    "checkpoint": lambda value: value is None or (isinstance(value, str) and len(value) < 2**12),
}
