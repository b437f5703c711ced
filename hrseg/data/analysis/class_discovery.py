"""Discovery of classes from a sample of images and masks."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hrseg.data.analysis.class_files import Color
from hrseg.data.dataset import exif_note
from hrseg.data.images import decoder_errors, header_of
from hrseg.data.masks import ALPHA_MODES, LOSSY_FORMATS, mask_formats, stored_values
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import some

VOID_NAMES = ("void", "ignore", "ignored", "unlabelled", "unlabeled", "undefined")
_GREY_MODES = ("1", "L", "I", "I;16", "I;16B")
_BLENDS = 16  # minimum of ids between two others that suggests interpolation
_FAR = 16  # minimum distance of class ids drawn as grey levels


@dataclass
class Survey:
    """Contents of a sample of image and mask pairs."""

    sizes: list[tuple[int, int]] = field(default_factory=list)  # (height, width) of each image
    kinds: Counter[str] = field(default_factory=Counter)  # of masks: grey, alpha, JPEG, ...
    pixels: Counter[int] = field(default_factory=Counter)  # of each id, or colour as 0xRRGGBB
    palette: list[Color] = field(default_factory=list)  # of the first palette mask
    other_size: list[Path] = field(default_factory=list)  # masks of another size than the image
    unreadable: dict[Path, str] = field(default_factory=dict)  # file -> fault
    inner: Counter[int] = field(default_factory=Counter)  # pixels with equal neighbours, by id
    exif: Counter[str] = field(default_factory=Counter)  # notes on orientations of images


@dataclass
class Classes:
    """Discovered classes, as arguments of the data set `Folder`."""

    names: list[str]
    keys: list[int]  # id, or colour as 0xRRGGBB, of each class in the survey
    mask_format: str = "index"
    palette: list[Color] | None = None
    id_map: dict[int, int] | None = None
    ignore_ids: tuple[int, ...] = (IGNORE_INDEX,)
    warnings: list[str] = field(default_factory=list)  # assumptions, one per line


def take_survey(pairs: Iterable[tuple[Path, Path]]) -> Survey:
    """Read the header of each image and all pixels of each mask."""
    survey = Survey()
    for image_path, mask_path in pairs:
        path = mask_path
        try:
            with (
                decoder_errors(mask_path),
                Image.open(mask_path, formats=mask_formats(mask_path)) as mask,
            ):
                path, mask_size = image_path, (mask.height, mask.width)
                size, *orientations = header_of(image_path, mask_size)
                survey.sizes.append(size)
                if note := exif_note(*orientations):
                    survey.exif[note] += 1
                path = mask_path
                if mask_size != size:
                    survey.other_size.append(mask_path)
                _count(mask, survey)
        except DataError as error:
            survey.unreadable[path] = str(error).partition("\n")[0]
    return survey


def find_classes(
    survey: Survey, names: Sequence[str] = (), palette: Sequence[Color] | None = None
) -> Classes:
    """Return the classes of the masks, with names and palette of classes.json if given.

    Raises:
        DataError: no classes, more than 254, or invalid ids.
    """
    if survey.kinds["colour"]:
        return _color_classes(survey, names, palette)
    ids = sorted(set(survey.pixels) - {IGNORE_INDEX})
    binary = ids == [0] and len(names) == 2  # 255 may be the second class
    if ids and ids[-1] < len(names) and not binary:  # each id has a name: 255 is ignored
        classes = Counter({key: count for key, count in survey.pixels.items() if key in ids})
        survey = replace(survey, pixels=classes)
    return _id_classes(survey, names, palette)


def code(color: Color) -> int:
    """Return a colour as 0xRRGGBB."""
    return color[0] << 16 | color[1] << 8 | color[2]


def _count(mask: Image.Image, survey: Survey) -> None:
    if mask.format in LOSSY_FORMATS:
        survey.kinds["JPEG"] += 1
        return
    kind, values = _values(mask)
    counts = np.bincount(values.ravel())
    survey.pixels.update({int(value): int(counts[value]) for value in np.flatnonzero(counts)})
    if kind in ("grey", "alpha") and np.count_nonzero(counts) > _BLENDS:
        block = values[:-1, :-1]
        inner = (block == values[:-1, 1:]) & (block == values[1:, :-1])
        ids, numbers = np.unique(block[inner], return_counts=True)
        survey.inner.update(dict(zip(ids.tolist(), numbers.tolist(), strict=True)))
    survey.kinds[kind] += 1
    if kind == "palette" and not survey.palette:
        flat = mask.getpalette() or []
        survey.palette = list(zip(flat[::3], flat[1::3], flat[2::3], strict=False))


def _values(mask: Image.Image) -> tuple[str, npt.NDArray[np.int32]]:
    """Return the kind of a mask and its values (H, W): ids, alpha, or colours as 0xRRGGBB."""
    if mask.mode in ("P", *_GREY_MODES):
        kind = "palette" if mask.mode == "P" else "grey"
        return kind, stored_values(mask).astype(np.int32)  # 0..65535 in a PNG
    if mask.mode == "F":
        raise DataError("decimal numbers.\nExpected: class ids 0..254 as whole numbers.")
    red, green, blue = np.moveaxis(np.asarray(mask.convert("RGB")).astype(np.int32), 2, 0)
    colors = red << 16 | green << 8 | blue
    if mask.mode in ALPHA_MODES:
        alpha = np.asarray(mask.getchannel("A")).astype(np.int32)
        # A mask with one colour, or a photo that was cut out.
        if (alpha.min() < 255 and (colors == colors[0, 0]).all()) or _is_photo(colors, alpha):
            return "alpha", alpha
    return "colour", colors


def _is_photo(colors: npt.NDArray[np.int32], alpha: npt.NDArray[np.int32]) -> bool:
    return bool(alpha.min() < alpha.max()) and len(np.unique(colors)) > IGNORE_INDEX


def _id_classes(survey: Survey, names: Sequence[str], palette: Sequence[Color] | None) -> Classes:
    ids = sorted(set(survey.pixels) - {IGNORE_INDEX})
    _check_class_ids(survey, ids)
    mask_format = "alpha" if survey.kinds["alpha"] else "index"
    if set(survey.pixels) == {0, IGNORE_INDEX}:
        warning = "masks contain only 0 and 255: 255 is read as a class, not as ignored"
        pair = list(names) if len(names) == 2 else ["background", "foreground"]
        id_map = {0: 0, IGNORE_INDEX: 1}
        keys = [0, IGNORE_INDEX]
        return Classes(pair, keys, mask_format, None, id_map, (), [warning])
    gaps = np.diff([*ids, IGNORE_INDEX])
    if IGNORE_INDEX in survey.pixels and gaps.min() >= _FAR and len(names) != len(ids):
        # Grey levels such as 0, 128, 255.
        if len(names) != len(ids) + 1:
            names = [f"class_{key}" for key in (*ids, IGNORE_INDEX)]
        ids.append(IGNORE_INDEX)
        warning = "the ids are far apart: 255 is read as a class, not as ignored"
        return Classes(list(names), ids, mask_format, None, _id_map(ids), (), [warning])
    named, warnings = _named(ids, names)
    kept = {key: name for key, name in named.items() if name.lower() not in VOID_NAMES}
    colors = dict(zip(named, palette, strict=False)) if palette else _png_colors(survey)
    unused = {0} if ids[0] == 1 and not names else set()
    return Classes(
        list(kept.values()),
        list(kept),
        mask_format,
        palette=[colors[key] for key in kept] if set(kept) <= set(colors) else None,
        id_map=_id_map(list(kept)),
        ignore_ids=tuple(sorted({*(set(named) - set(kept)), *unused, IGNORE_INDEX})),
        warnings=warnings,
    )


def _check_class_ids(survey: Survey, ids: list[int]) -> None:
    """Raise DataError for ignored masks, or ids of instances, of 16 bits, or interpolated."""
    if not ids:
        raise DataError("the masks contain only 255.\nExpected: ids 0..254 of classes.")
    if len(ids) > IGNORE_INDEX:
        raise DataError(
            f"the masks contain {len(ids)} different ids up to {ids[-1]}: these look like instance "
            "ids.\nExpected: the same id for all objects of a class, 0..254, and 255 for ignored "
            "pixels.\nFix: export class masks (semantic segmentation) from the annotation tool."
        )
    if ids[-1] > IGNORE_INDEX:
        shown = f"[{some(ids, 5)}]" if len(ids) < 6 else "the list of these ids"
        raise DataError(
            f"the masks contain {len(ids)} ids of 16 bits, up to {ids[-1]}.\nExpected: ids 0..254 "
            "of classes, and 255 for ignored pixels, in PNGs of 8 bits.\nFix: renumber them and "
            f"write the masks again: np.searchsorted({shown}, mask).astype('uint8')"
        )
    total = sum(survey.pixels.values())
    large = [key for key, count in survey.pixels.items() if count >= 0.02 * total]
    between = [key for key in survey.pixels if min(large) < key < max(large)] if large else []
    blends = [key for key in between if key not in large]
    inner, pixels = (
        sum(counter[key] for key in blends) for counter in (survey.inner, survey.pixels)
    )
    if len(blends) >= _BLENDS and inner < 0.5 * pixels:
        raise DataError(
            f"the masks look interpolated: {len(blends)} ids between {min(large)} and {max(large)} "
            f"have {pixels / total:.1%} of the pixels, along borders.\nExpected: only the ids of "
            "classes.\nFix: export or resize the masks again with nearest-neighbour interpolation."
        )


def _named(ids: list[int], names: Sequence[str]) -> tuple[dict[int, str], list[str]]:
    """Return a name for each raw id, given or a placeholder, and warnings."""
    if names and all(names) and ids[0] in (0, 1) and ids[-1] == len(names) and len(ids) > 2:
        warning = (
            f"{len(names)} names for ids 0..{ids[-1]}: they are for 1..{ids[-1]}, 0 is unlabelled. "
            f"If {ids[-1]} is unlabelled instead: data.id_map=null data.ignore_ids=[{ids[-1]},255]"
        )
        return dict(enumerate(["unlabelled", *names])), [warning]
    if len(names) == len(ids) and ids[-1] >= len(names):
        warning = "ids have gaps: the names are for the existing ids, in their order"
        return dict(zip(ids, names, strict=True)), [warning]
    given = {key: name for key, name in enumerate(names) if name}
    more = [key for key in ids if key not in given]
    named = dict(sorted((given | {key: f"class_{key}" for key in more}).items()))
    if not names or not more:
        return named, []
    return named, [f"ids up to {more[-1]}, but {len(given)} class names: placeholders added"]


def _png_colors(survey: Survey) -> dict[int, Color]:
    """Return id -> colour of palette masks; {} for shades of grey."""
    colors = {key: color for key, color in enumerate(survey.palette) if key in survey.pixels}
    if survey.kinds["grey"] or all(len(set(color)) == 1 for color in colors.values()):
        return {}
    return colors


def _color_classes(
    survey: Survey, names: Sequence[str], palette: Sequence[Color] | None
) -> Classes:
    if len(survey.pixels) > IGNORE_INDEX:
        raise DataError(
            f"the masks contain {len(survey.pixels)} colours.\n"
            f"Expected: one per class, at most {IGNORE_INDEX}. Were they resized or smoothed?\n"
            "Fix: export them again without interpolation."
        )
    warnings = []
    if survey.kinds["grey"] or survey.kinds["palette"]:
        warnings.append("some masks contain colours, others ids: only one kind can be read")
    if names and not palette and all(key % 0x10101 == 0 for key in survey.pixels):
        palette = [(i, i, i) for i in range(len(names))]  # ids that were saved as RGB
    known = [code(color) for color in palette or ()]
    more = [key for key in sorted(survey.pixels) if key not in known]
    if palette and more:
        warnings.append(f"{len(more)} colours are not in the palette of the class file: ignored")
    elif names and not palette:
        warnings.append("names cannot be matched to colours: put a palette into classes.json")
    keys = known + more
    if not palette:
        names = [f"class_{position}" for position in range(len(keys))]
    if not palette and 0 in keys:
        warnings.append(
            "black (0, 0, 0) is read as a class: if it means unlabelled, name it void in a "
            "classes.json with a palette"
        )
    named = zip(range(len(keys)), names, strict=False)
    kept = {raw: name for raw, name in named if name.lower() not in VOID_NAMES}
    return Classes(
        list(kept.values()),
        [keys[raw] for raw in kept],
        "rgb",
        [(key >> 16, key >> 8 & 255, key & 255) for key in keys],
        _id_map(list(kept)),
        tuple(raw for raw in range(len(keys)) if raw not in kept),
        warnings,
    )


def _id_map(raw: list[int]) -> dict[int, int] | None:
    return None if raw == list(range(len(raw))) else {key: i for i, key in enumerate(raw)}
