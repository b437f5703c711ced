"""Discovery of the layout of a folder: images, masks and splits."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from hrseg.data.images import SUFFIXES
from hrseg.data.pairing import find_files, read_list
from hrseg.errors import DataError

SPLIT = "{split}"
LIST_FOLDERS = ("", "splits/", "lists/", "ImageSets/Segmentation/")
_TRAIN, _HELD_OUT = "train(?:ing)?", "val(?:id(?:ation)?)?|test(?:ing)?"
_MASK = (
    "mask|label|annot|segment|ground.?truth|target|gtfine|gtcoarse"
    "|(?<![a-z])(?:gt|seg|ann|lbl)(?![a-z])"
)
_IMAGE = "image|img|photo|picture|rgb|jpe?g|frame|(?<![a-z])inputs?(?![a-z])"
# train, trainannot, train_masks; masks_train.
_SPLIT_FIRST = rf"({_TRAIN}|{_HELD_OUT})((?:[^a-z].*|(?:{_MASK}|{_IMAGE}).*)?)"
_SPLIT_LAST = rf"(.*[^a-z])({_TRAIN}|{_HELD_OUT})"


@dataclass(frozen=True)
class Layout:
    """How images and masks lie below a folder, in the words of the data set `Folder`.

    Attributes:
        image_folder: below root, maybe with `{split}` in it.
        mask_folder: below root, likewise.
        mask_suffix: what a mask's stem has after the image's.
        splits: names of the training and the validation split, folders or lists (train.txt);
            empty: all in one place.
        pairs: (image, mask) paths by split; by "" if there are no splits.
        lonely: images without a mask, and masks without an image.
    """

    image_folder: str
    mask_folder: str
    mask_suffix: str
    splits: tuple[str, ...]
    pairs: Mapping[str, list[tuple[Path, Path]]]
    lonely: tuple[Path, ...]


def find_layout(root: Path) -> Layout:
    """Return the layout under which most images find their mask.

    Raises:
        DataError: no such folder, or nothing that pairs.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root.absolute()}\nexpected one that holds images and masks.")
    images: dict[str, set[str]] = {}
    masks: dict[str, set[str]] = {}
    for folder, files in _folders(root):
        is_mask, place, split = _describe(folder.relative_to(root).parts, files)
        (masks if is_mask else images).setdefault(place, set()).add(split)
    tried = [_pair(root, *candidate) for candidate in _candidates(images, masks)]
    layouts = [layout for layout in tried if layout is not None]
    if not layouts:
        seen = ", ".join(sorted({*images, *masks})[:4]) or f"no {', '.join(SUFFIXES)} files"
        raise DataError(
            f"{root.absolute()}: no images with masks of the same name (found: {seen}).\n"
            "Expected folders images and masks, each mask named as its image (images/a.jpg, "
            "masks/a.png),\nor with a suffix (a_mask.png); splits in folders train and val."
        )
    best = max(layouts, key=lambda layout: sum(map(len, layout.pairs.values())))
    return best if best.splits else _with_lists(root, best)


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder below root that holds images itself, and those."""
    for where, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = [Path(where, name) for name in sorted(names) if not name.startswith(".")]
        files = [file for file in files if file.suffix.lower() in SUFFIXES]
        if files:
            yield Path(where), files


def _describe(parts: tuple[str, ...], files: list[Path]) -> tuple[bool, str, str]:
    """Return whether a folder holds masks, its place with `{split}` for the split, and that."""
    words, split, deepest = list(parts), "", -1
    for index, part in enumerate(parts):
        first = re.fullmatch(_SPLIT_FIRST, part, re.I)
        last = re.fullmatch(_SPLIT_LAST, part, re.I)
        if first or last:
            split = first[1] if first else last[2] if last else ""
            words[index] = f"{SPLIT}{first[2]}" if first else f"{last[1] if last else ''}{SPLIT}"
            deepest = index
            break
    is_mask = None
    for index in reversed(range(len(words))):
        name = words[index].replace(SPLIT, " ").lower()
        if re.search(f"{_MASK}|{_IMAGE}", name):
            is_mask = re.search(_MASK, name) is not None
            deepest = max(deepest, index)
            break
    if is_mask is None:
        is_mask = all(_looks_like_a_mask(file) for file in files[:: len(files) // 3 + 1])
    # What lies deeper, such as a folder per city, is searched along with it.
    used = words if deepest < 0 else words[: deepest + 1]
    return is_mask, "/".join(used) or ".", split


def _looks_like_a_mask(path: Path) -> bool:
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            few = image.mode in ("P", "1") or image.convert("RGB").getcolors(64) is not None
            return image.format == "PNG" and few
    except (OSError, SyntaxError, ValueError):
        return False


def _candidates(
    images: Mapping[str, set[str]], masks: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield image folder, mask folder (maybe the same) and splits of what might pair."""
    places = {**masks, **images}
    apart = [(image, mask) for image in images for mask in masks if image != mask]
    for image_place, mask_place in [*apart, *((place, place) for place in places)]:
        if image_place != mask_place and _inside(mask_place, image_place):
            continue  # inside the image folder: the masks would be taken for images
        common = sorted(places[image_place] & places[mask_place])
        train = [name for name in common if re.fullmatch(_TRAIN, name, re.I)]
        held_out = [name for name in common if re.fullmatch(_HELD_OUT, name, re.I)]
        if train and held_out:
            # val before test: what is tested on is kept for the end.
            yield image_place, mask_place, (train[0], max(held_out))
        else:
            for name in common:
                yield image_place.replace(SPLIT, name), mask_place.replace(SPLIT, name), ()


def _inside(place: str, other: str) -> bool:
    return other == "." or place.startswith(f"{other}/")


def _pair(
    root: Path, image_folder: str, mask_folder: str, splits: tuple[str, ...]
) -> Layout | None:
    """Return the layout of two folders, None if nothing pairs in them."""
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    lonely: list[Path] = []
    suffix = None
    for split in splits or ("",):
        images = root / image_folder.replace(SPLIT, split)
        masks = root / mask_folder.replace(SPLIT, split)
        try:
            image_of, mask_of = find_files(images), find_files(masks)
            if suffix is None:
                suffix = _suffix(image_of, mask_of, images == masks)
            mask_of = find_files(masks, suffix)
        except DataError:
            return None
        if images == masks:
            image_of = {s: image for s, image in image_of.items() if not s.endswith(suffix)}
        both = [stem for stem in image_of if stem in mask_of]
        if not both:
            return None
        pairs[split] = [(image_of[stem], mask_of[stem]) for stem in both]
        lonely += [image_of[stem] for stem in image_of if stem not in mask_of]
        lonely += [mask_of[stem] for stem in mask_of if stem not in image_of]
    ends = f"/{SPLIT}"
    if splits and f"/{image_folder}".endswith(ends) and f"/{mask_folder}".endswith(ends):
        # `Folder` looks for split folders itself where they come last.
        image_folder, mask_folder = (
            f"./{folder}".removesuffix(ends).removeprefix("./")
            for folder in (image_folder, mask_folder)
        )
    return Layout(image_folder, mask_folder, suffix or "", splits, pairs, tuple(lonely))


def _with_lists(root: Path, layout: Layout) -> Layout:
    """Return the layout split by lists (train.txt, val.txt), as in VOC, where there are any."""
    images, masks = root / layout.image_folder, root / layout.mask_folder
    for folder in LIST_FOLDERS:
        splits = (f"{folder}train.txt", f"{folder}val.txt")
        if all((root / split).is_file() for split in splits):
            suffix = layout.mask_suffix
            pairs = {split: read_list(root, split, images, masks, suffix) for split in splits}
            return replace(layout, splits=splits, pairs=pairs, lonely=())
    return layout


def _suffix(images: Iterable[str], masks: Iterable[str], same_folder: bool) -> str:
    """Return what most masks have after an image's name: nothing, or for example "_mask".

    Raises:
        DataError: no mask's name begins with an image's.
    """
    known = set(images)
    masks = list(masks)
    if not same_folder and known & set(masks):
        return ""
    endings: Counter[str] = Counter()
    for mask in masks:
        cut = next((cut for cut in range(len(mask) - 1, 0, -1) if mask[:cut] in known), len(mask))
        ending = mask[cut:]
        if re.search(_MASK if same_folder else rf"^[^a-z0-9]|{_MASK}", ending, re.I):
            endings[ending] += 1
    if not endings:
        raise DataError("no mask has the name of an image, with or without an addition")
    return endings.most_common(1)[0][0]
