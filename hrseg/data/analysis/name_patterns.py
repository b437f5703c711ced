"""Discovery of the prefixes and suffixes in the names of images and masks."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hrseg.data.pairing import Names

MASK = (
    "mask|label|annot|segment|ground.?truth|target|gtfine|gtcoarse"
    "|(?<![a-z])(?:gt|seg|ann|lbl)(?![a-z])"
)
IMAGE = "image|img|photo|picture|rgb|jpe?g|frame|(?<![a-z])inputs?(?![a-z])"
# Files beside the class ids, such as Cityscapes' _gtFine_color.
_OTHER_KINDS = "colou?r|instance|inst(?![a-z])|object|panoptic|overlay|vis(?![a-z])|poly"


def find_names(
    images: Mapping[str, Path], masks: Mapping[str, Path], same_folder: bool
) -> Names | None:
    """Return the prefixes and suffixes with which most files pair; None without pairs.

    Args:
        images: the images by relative path without extension.
        masks: the masks by relative path without extension.
        same_folder: whether both are in one folder, which contains the images and the masks.
    """
    if not same_folder and _have_common_names(images, masks):
        return Names()
    endings = _endings(images, masks, same_folder)
    if len(_per_class(endings, len(images))) > 1:
        return None
    if endings:
        usual = Counter(
            {end: n for end, n in endings.items() if not re.search(_OTHER_KINDS, end, re.I)}
        )
        return Names(mask_suffix=(usual or endings).most_common(1)[0][0])
    return _affixes(images, masks, same_folder)


def class_endings(images: Iterable[str], masks: Iterable[str]) -> list[str]:
    """Return the ends of the masks' names if each image has a mask per class: "_car", "_road"."""
    images = set(images)
    return _per_class(_endings(images, masks, False), len(images))


def _have_common_names(images: Iterable[str], masks: Iterable[str]) -> bool:
    return bool({stem.casefold() for stem in images} & {stem.casefold() for stem in masks})


def _endings(images: Iterable[str], masks: Iterable[str], same_folder: bool) -> Counter[str]:
    """Return the ends of the masks' names after an image's name, with their numbers."""
    images = set(images)
    pattern = MASK if same_folder else rf"^[^a-z0-9]|{MASK}"
    endings: Counter[str] = Counter()
    for mask in masks:
        end = next((end for end in range(len(mask) - 1, 0, -1) if mask[:end] in images), len(mask))
        if re.search(pattern, mask[end:], re.I):
            endings[mask[end:]] += 1
    return endings


def _per_class(endings: Mapping[str, int], images: int) -> list[str]:
    frequent = sorted(end for end, count in endings.items() if 2 * count >= images)
    unusual = not any(re.search(f"{MASK}|{_OTHER_KINDS}", end, re.I) for end in frequent)
    return frequent if len(frequent) > 1 and unusual else []


def _affixes(
    images: Mapping[str, Path], masks: Mapping[str, Path], same_folder: bool
) -> Names | None:
    """Return the prefixes or suffixes of names such as image_1 and label_1, a_sat and a_mask.

    They must pair at least half of the masks. Longer common names win.
    """
    parts: dict[str, list[tuple[str, str]]] = {}
    for image in images:
        for core, prefix, suffix in _cores(image):
            parts.setdefault(core, []).append((prefix, suffix))
    votes: Counter[Names] = Counter()
    lengths: Counter[Names] = Counter()
    for mask in masks:
        for core, prefix, suffix in _cores(mask):
            if same_folder and not re.search(MASK, prefix + suffix, re.I):
                continue
            for image_prefix, image_suffix in parts.get(core, ())[:20]:
                if (image_prefix, image_suffix) != (prefix, suffix):
                    names = Names(image_prefix, image_suffix, prefix, suffix)
                    votes[names] += 1
                    lengths[names] += len(core)
    if not votes:
        return None
    best = max(votes, key=lambda names: (votes[names], lengths[names]))
    count = sum(_is_mask(Path(mask).name, best) for mask in masks) if same_folder else len(masks)
    return best if 2 * votes[best] >= count else None


def _is_mask(name: str, names: Names) -> bool:
    return name.startswith(names.mask_prefix) and name.endswith(names.mask_suffix)


def _cores(stem: str) -> Iterator[tuple[str, str, str]]:
    """Yield (core, prefix, suffix) of a stem, cut between words; the core keeps the folder."""
    parent, _, name = stem.rpartition("/")
    yield f"{parent}/{name}", "", ""
    for cut in re.finditer(r"(?<=[^a-z0-9])(?=[a-z0-9])|(?<=[a-z])(?=\d)", name, re.I):
        yield f"{parent}/{name[cut.start() :]}", name[: cut.start()], ""
    for cut in re.finditer(r"(?<=[a-z0-9])(?=[^a-z0-9])|(?<=\d)(?=[a-z])", name, re.I):
        yield f"{parent}/{name[: cut.start()]}", "", name[cut.start() :]
