"""Discovery of the layout of a folder: images, masks and splits."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from hrseg.data.analysis.unpaired_files import IMAGE, MASK, explain
from hrseg.data.datasets.folder import SPLIT
from hrseg.data.images import FORMATS, SUFFIXES
from hrseg.data.pairing import find_files, read_list, refuse_folder
from hrseg.errors import DataError

LIST_FOLDERS = ("", "splits/", "lists/", "ImageSets/Segmentation/")
_TRAIN, _HELD_OUT = "train(?:ing)?", "val(?:id(?:ation)?)?|test(?:ing)?"
# train, trainannot, train_masks; masks_train.
_SPLIT_FIRST = rf"({_TRAIN}|{_HELD_OUT})((?:[^a-z].*|(?:{MASK}|{IMAGE}).*)?)"
_SPLIT_LAST = rf"(.*[^a-z])({_TRAIN}|{_HELD_OUT})"


@dataclass(frozen=True)
class Layout:
    """Layout of images and masks below a folder, as arguments of the data set `Folder`."""

    image_folder: str  # maybe with `{split}` in it
    mask_folder: str
    mask_suffix: str
    splits: tuple[str, ...]  # to train and to validate on, folders or lists; empty: one folder
    pairs: Mapping[str, list[tuple[Path, Path]]]  # by split; by "" without splits
    unpaired: tuple[Path, ...]
    masks_alone: tuple[Path, ...] = ()  # those of `unpaired` that are masks
    left_out: tuple[str, ...] = ()  # folders with images that no part of the layout has


def find_layout(root: Path) -> Layout:
    """Return the layout with the most pairs.

    Raises:
        DataError: no such folder, or no pairs.
    """
    if not root.is_dir():
        path, fix = root.absolute(), f" Fix: hrseg init {shlex.quote(str(root.parent))}"
        fault = f"{path} is a file, not a folder" if root.is_file() else f"no folder {path}"
        raise DataError(
            f"{fault}.\nExpected a folder that holds images and masks."
            f"{fix if root.is_file() else ''}"
        )
    images: dict[str, set[str]] = {}
    masks: dict[str, set[str]] = {}
    folders = dict(_folders(root))
    for folder, files in folders.items():
        is_mask, pattern, split = _describe(folder.relative_to(root).parts, files)
        (masks if is_mask else images).setdefault(pattern, set()).add(split)
    _add_stars(images)
    _add_stars(masks)
    tried = [_pair(root, *candidate) for candidate in _candidates(images, masks)]
    layouts = [layout for layout in tried if layout is not None]
    if not layouts:
        listed = _with_lists(root, Layout("images", "masks", "", (), {}, ()))
        if listed.splits:
            return listed
        raise DataError(explain(root, folders, masks))
    best = max(layouts, key=lambda layout: sum(map(len, layout.pairs.values())))
    return _with_left_out(root, best if best.splits else _with_lists(root, best), folders)


def _add_stars(patterns: dict[str, set[str]]) -> None:
    """Add "*/images" for folders such as scene0/images and scene1/images."""
    starred: dict[str, list[str]] = {}
    for pattern in patterns:
        parts = pattern.split("/")
        for index in range(len(parts) - 1):
            if SPLIT not in parts[index]:
                star = "/".join([*parts[:index], "*", *parts[index + 1 :]])
                starred.setdefault(star, []).append(pattern)
    for star, members in starred.items():
        if len(members) > 1:
            patterns[star] = set.intersection(*(patterns[member] for member in members))


def _with_left_out(root: Path, layout: Layout, folders: Mapping[Path, list[Path]]) -> Layout:
    """Add the folders of which no file has a pair."""
    used = {path for pairs in layout.pairs.values() for pair in pairs for path in pair}
    used.update(layout.unpaired)
    lines = []
    for folder, files in folders.items():
        if left := [path for path in files if path not in used]:
            name = folder.relative_to(root).as_posix()
            lines.append(f"{len(left)} files in {name}")
    return replace(layout, left_out=tuple(lines))


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder below root that holds images itself, and those; links are followed."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(root, onerror=refuse_folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above would not end
            folders.clear()
            continue
        seen.add(real)
        files = [Path(parent, name) for name in sorted(names) if not name.startswith(".")]
        files = [file for file in files if file.suffix.lower() in SUFFIXES]
        if files:
            yield Path(parent), files


def _describe(parts: tuple[str, ...], files: list[Path]) -> tuple[bool, str, str]:
    """Return whether a folder holds masks, its path with `{split}` for the split, and the split."""
    words, split, depth = list(parts), "", 0
    for index, part in enumerate(parts):
        if match := re.fullmatch(_SPLIT_FIRST, part, re.I):
            words[index], split = f"{SPLIT}{match[2]}", match[1]
        elif match := re.fullmatch(_SPLIT_LAST, part, re.I):
            words[index], split = f"{match[1]}{SPLIT}", match[2]
        if match:
            depth = index + 1
            break
    is_mask = None
    for index in reversed(range(len(words))):
        name = words[index].replace(SPLIT, " ")
        if re.search(f"{MASK}|{IMAGE}", name, re.I):
            is_mask = re.search(MASK, name, re.I) is not None
            depth = max(depth, index + 1)
            break
    if is_mask is None:
        is_mask = all(_looks_like_a_mask(file) for file in files[:: len(files) // 3 + 1])
    # Deeper folders, such as one per city, are searched along with it.
    return is_mask, "/".join(words[: depth or None]) or ".", split


def _looks_like_a_mask(path: Path) -> bool:
    try:
        with Image.open(path, formats=FORMATS) as image:
            few = image.mode in ("P", "1") or image.convert("RGB").getcolors(64) is not None
            return image.format == "PNG" and few
    except (OSError, SyntaxError, ValueError):
        return False


def _candidates(
    images: Mapping[str, set[str]], masks: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield image folder, mask folder (maybe the same) and splits of possible layouts."""
    splits = {**masks, **images}
    apart = [(image, mask) for image in images for mask in masks if image != mask]
    for image, mask in [*apart, *((folder, folder) for folder in splits)]:
        if image != mask and (image == "." or mask.startswith(f"{image}/")):
            continue  # inside the image folder: the masks would be taken for images
        common = sorted(splits[image] & splits[mask])
        train = [name for name in common if re.fullmatch(_TRAIN, name, re.I)]
        held_out = [name for name in common if re.fullmatch(_HELD_OUT, name, re.I)]
        if train and held_out:
            # val rather than test, which is kept for the end: "val" > "test".
            yield image, mask, (train[0], max(held_out))
        else:
            for name in common:
                yield image.replace(SPLIT, name), mask.replace(SPLIT, name), ()


def _pair(
    root: Path, image_folder: str, mask_folder: str, splits: tuple[str, ...]
) -> Layout | None:
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    unpaired: list[Path] = []
    masks_alone: list[Path] = []
    suffix = None
    for split in splits or ("",):
        images, masks = (root / f.replace(SPLIT, split) for f in (image_folder, mask_folder))
        try:
            image_of = find_files(images)
            if suffix is None:
                suffix = _suffix(image_of, find_files(masks), images == masks)
            mask_of = find_files(masks, suffix)
        except DataError:
            return None
        if images == masks:
            image_of = {s: image for s, image in image_of.items() if not s.endswith(suffix)}
        pairs[split] = [(image_of[stem], mask_of[stem]) for stem in image_of if stem in mask_of]
        if not pairs[split]:
            return None
        unpaired += [image_of[stem] for stem in image_of if stem not in mask_of]
        masks_alone += [mask_of[stem] for stem in mask_of if stem not in image_of]
    if splits and Path(image_folder).name == Path(mask_folder).name == SPLIT:
        # `Folder` itself looks for splits in the last folder.
        image_folder, mask_folder = (
            Path(folder).parent.as_posix() for folder in (image_folder, mask_folder)
        )
    unpaired_masks = tuple(masks_alone)
    left = (*unpaired, *unpaired_masks)
    return Layout(image_folder, mask_folder, suffix or "", splits, pairs, left, unpaired_masks)


def _with_lists(root: Path, layout: Layout) -> Layout:
    images, masks = root / layout.image_folder, root / layout.mask_folder
    for folder in LIST_FOLDERS:
        splits = (f"{folder}train.txt", f"{folder}val.txt")
        if all((root / split).is_file() for split in splits):
            suffix = layout.mask_suffix
            pairs = {split: read_list(root, split, images, masks, suffix) for split in splits}
            return replace(layout, splits=splits, pairs=pairs, unpaired=(), masks_alone=())
    return layout


def _suffix(images: Mapping[str, Path], masks: Mapping[str, Path], same_folder: bool) -> str:
    """Return what most masks have after an image's name: nothing, or for example "_mask"."""
    if not same_folder and images.keys() & masks.keys():
        return ""
    endings: Counter[str] = Counter()
    for mask in masks:
        end = next((end for end in range(len(mask) - 1, 0, -1) if mask[:end] in images), len(mask))
        if re.search(MASK if same_folder else rf"^[^a-z0-9]|{MASK}", mask[end:], re.I):
            endings[mask[end:]] += 1
    if not endings:
        raise DataError("no mask has the name of an image, with or without an addition")
    return endings.most_common(1)[0][0]
