"""scores.json and images.json of any folder: checked, since anyone can have written them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from hrseg.utils.text import one_line

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
