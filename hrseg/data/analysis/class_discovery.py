"""Discovery of classes from a sample of images and masks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.data.masks import stored_values
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

Color = tuple[int, int, int]

VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "undefined")
_FORMATS = ("PNG", "JPEG")
_GREY_MODES = ("1", "L", "LA", "I", "I;16")


@dataclass
class Survey:
    """What was counted.

    Attributes:
        sizes: (height, width) of each image.
        grey: number of images without colour.
        kinds: number of masks by kind: "palette", "grey", "colour", "JPEG" (not counted further).
        pixels: pixels of each id, or of each colour as 0xRRGGBB.
        masks: number of masks that each of them occurs in.
        palette: the colours of the first palette mask.
        other_size: masks that have another size than their image.
        unreadable: damaged files.
    """

    sizes: list[tuple[int, int]] = field(default_factory=list)
    grey: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    masks: Counter[int] = field(default_factory=Counter)
    palette: list[Color] = field(default_factory=list)
    other_size: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


@dataclass
class Classes:
    """The classes that a survey shows, in the words of the data set `Folder`.

    Attributes:
        names: one per class.
        keys: what stands for each class in the survey, an id or a colour's code.
        mask_format: "index" or "rgb".
        palette: a colour per class, or per raw id where masks hold colours.
        id_map: raw id -> train id; None: they are the same.
        ignore_ids: raw ids that are not scored.
        warnings: guesses that were made, a line each.
    """

    names: list[str]
    keys: list[int]
    mask_format: str = "index"
    palette: list[Color] | None = None
    id_map: dict[int, int] | None = None
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    warnings: list[str] = field(default_factory=list)


def take_survey(pairs: Iterable[tuple[Path, Path]]) -> Survey:
    """Look at the header of each image and at all pixels of each mask."""
    survey = Survey()
    for image_path, mask_path in pairs:
        path = image_path
        try:
            with Image.open(image_path, formats=_FORMATS) as image:
                size = (image.height, image.width)
                survey.grey += image.mode in _GREY_MODES
            survey.sizes.append(size)
            path = mask_path
            with Image.open(mask_path, formats=_FORMATS) as mask:
                if (mask.height, mask.width) != size:
                    survey.other_size.append(mask_path)
                _count(mask, survey)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            survey.unreadable.append(path)
    return survey


def find_classes(
    survey: Survey, names: Sequence[str] = (), palette: Sequence[Color] | None = None
) -> Classes:
    """Return the classes that the masks show; names and palette are what classes.json says.

    Raises:
        DataError: no classes, or more than can be told apart.
    """
    return (_colors if survey.kinds["colour"] else _ids)(survey, names, palette)


def code(color: Color) -> int:
    """Return a colour as 0xRRGGBB."""
    return color[0] << 16 | color[1] << 8 | color[2]


def _count(mask: Image.Image, survey: Survey) -> None:
    if mask.format == "JPEG":
        survey.kinds["JPEG"] += 1
        return
    if mask.mode == "P" or (mask.mode in _GREY_MODES and mask.mode != "LA"):
        kind = "palette" if mask.mode == "P" else "grey"
        values = stored_values(mask).astype(np.int32)
    else:
        kind = "colour"
        red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int32), 2, 0)
        values = red << 16 | green << 8 | blue
    for value, count in _value_counts(values.ravel()).items():
        survey.pixels[value] += count
        survey.masks[value] += 1
    survey.kinds[kind] += 1
    if kind == "palette" and not survey.palette:
        flat = mask.getpalette() or []
        survey.palette = list(zip(flat[::3], flat[1::3], flat[2::3], strict=False))


def _value_counts(values: NDArray[np.int32]) -> dict[int, int]:
    """Return how often each value occurs; by runs, since a mask has few, and sorting is slow."""
    starts = np.flatnonzero(np.diff(values, prepend=values[0] - 1))
    lengths = np.diff(starts, append=len(values))
    unique, position = np.unique(values[starts], return_inverse=True)
    counts = np.bincount(position, lengths)
    return {int(value): int(count) for value, count in zip(unique, counts, strict=True)}


def _ids(survey: Survey, names: Sequence[str], palette: Sequence[Color] | None) -> Classes:
    """Return the classes of index masks; `palette` has a colour per name."""
    found = sorted(set(survey.pixels) - {IGNORE_INDEX})
    if not found or found[-1] > IGNORE_INDEX:
        raise DataError(
            f"the masks hold {f'ids up to {found[-1]}' if found else 'nothing but 255'}; "
            "expected ids 0..254 of classes, and 255 for ignored pixels."
        )
    if set(survey.pixels) == {0, IGNORE_INDEX}:
        warning = "masks hold 0 and 255 alone: 255 is taken for a class, not for ignored"
        pair = list(names) if len(names) == 2 else ["background", "foreground"]
        id_map = {0: 0, IGNORE_INDEX: 1}
        return Classes(pair, [0, IGNORE_INDEX], id_map=id_map, ignore_ids=(), warnings=[warning])
    named, warnings = _named(found, names)
    void = [key for key, name in named.items() if name.lower() in VOID_NAMES]
    kept = {key: name for key, name in named.items() if key not in void}
    colors = dict(zip(named, palette, strict=False)) if palette else _png_colors(survey)
    return Classes(
        list(kept.values()),
        list(kept),
        palette=[colors[key] for key in kept] if set(kept) <= set(colors) else None,
        id_map=_id_map(list(kept)),
        ignore_ids=tuple(sorted({*void, IGNORE_INDEX})),
        warnings=warnings,
    )


def _named(found: list[int], names: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """Return a name for each raw id, those given or else placeholders, and warnings."""
    if len(names) == len(found) and found[-1] >= len(names):
        warning = "ids have gaps: the names were given to the ids found, in their order"
        return dict(zip(found, names, strict=True)), [warning]
    more = [key for key in found if key >= len(names)]
    named = dict(enumerate(names)) | {key: f"class_{key}" for key in more}
    if not names or not more:
        return named, []
    return named, [f"ids up to {more[-1]}, but {len(names)} class names: placeholders added"]


def _png_colors(survey: Survey) -> dict[int, Color]:
    """Return the colours by id that palette masks bring along, unless they are shades of grey."""
    colors = {key: color for key, color in enumerate(survey.palette) if key in survey.pixels}
    if survey.kinds["grey"] or all(len(set(color)) == 1 for color in colors.values()):
        return {}
    return colors


def _colors(survey: Survey, names: Sequence[str], palette: Sequence[Color] | None) -> Classes:
    """Return the classes of colour masks, whose raw id is a colour's place in the palette."""
    if len(survey.pixels) > IGNORE_INDEX:
        raise DataError(
            f"the masks hold {len(survey.pixels)} colours; expected one per class, at most "
            f"{IGNORE_INDEX}.\nWere they resized or smoothed? Export them again without "
            "interpolation."
        )
    warnings = []
    if survey.kinds["grey"] or survey.kinds["palette"]:
        warnings.append("some masks hold colours, others ids: only one kind can be read")
    known = [code(color) for color in palette or ()]
    more = [key for key, _ in survey.pixels.most_common() if key not in known]
    if palette and more:
        warnings.append(f"{len(more)} colours are not in the palette of classes.json: ignored")
    elif names and not palette:
        warnings.append("names cannot be matched to colours: put a palette into classes.json")
    keys = known + more
    if not palette:
        names = [f"class_{place}" for place in range(len(keys))]
    kept = [place for place, name in enumerate(names) if name.lower() not in VOID_NAMES]
    return Classes(
        [names[place] for place in kept],
        [keys[place] for place in kept],
        "rgb",
        [(key >> 16, key >> 8 & 255, key & 255) for key in keys],
        _id_map(kept),
        tuple(sorted(set(range(len(keys))) - set(kept))),
        warnings,
    )


def _id_map(raw: list[int]) -> dict[int, int] | None:
    """Return raw id -> train id, None if they are the same."""
    return None if raw == list(range(len(raw))) else {key: i for i, key in enumerate(raw)}
