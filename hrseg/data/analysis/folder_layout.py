"""Discovery of the layout of a folder: images, masks and splits."""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from hrseg.data.analysis.name_patterns import IMAGE, MASK, find_names
from hrseg.data.analysis.unpaired_files import explain
from hrseg.data.datasets.folder import LISTS, SPLIT
from hrseg.data.masks import ALPHA_MODES, LOSSY_FORMATS, MASK_SUFFIXES, mask_formats
from hrseg.data.pairing import Names, find_files, find_pairs, read_list, walk
from hrseg.errors import DataError

LIST_FOLDERS = ("", "splits/", "lists/", "ImageSets/Segmentation/")
_LISTS = tuple(
    (f"{folder}train{extension}", f"{folder}val{extension}")
    for folder in LIST_FOLDERS
    for extension in LISTS
)
_TRAIN, _HELD_OUT = "train(?:ing)?", "val(?:id(?:ation)?)?|test(?:ing)?"
# train, trainannot, train_masks; masks_train.
_SPLIT_FIRST = rf"({_TRAIN}|{_HELD_OUT})((?:[^a-z].*|(?:{MASK}|{IMAGE}).*)?)"
_SPLIT_LAST = rf"(.*[^a-z])({_TRAIN}|{_HELD_OUT})"


@dataclass(frozen=True)
class Layout:
    """Layout of images and masks below a folder, as arguments of the data set `Folder`."""

    image_folder: str  # may contain `{split}`
    mask_folder: str
    names: Names
    splits: tuple[str, ...]  # training and validation, folders or lists; empty: one folder
    pairs: Mapping[str, list[tuple[Path, Path]]]  # by split; by "" without splits
    unpaired: tuple[Path, ...]
    unpaired_masks: tuple[Path, ...] = ()  # the masks in `unpaired`
    left_out: tuple[str, ...] = ()  # folders with images outside the layout
    pair_list: str | None = None  # list of all pairs instead of folders


def find_layout(root: Path) -> Layout:
    """Return the layout with the most pairs.

    Raises:
        DataError: no such folder, or no pairs.
    """
    if not root.is_dir():
        path, fix = root.absolute(), f" Fix: hrseg init {shlex.quote(str(root.parent))}"
        fault = "is a file, not a folder" if root.is_file() else "does not exist"
        raise DataError(
            f"{path} {fault}.\nExpected: a folder of images and masks."
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
    candidates = [_pair(root, *candidate) for candidate in _candidates(images, masks)]
    layouts = [layout for layout in candidates if layout is not None]
    if not layouts:
        listed = _with_lists(root, Layout("images", "masks", Names(), (), {}, ()))
        layout = listed if listed.splits else _pair_list(root) or _alpha_layout(root, folders)
        if layout is None:
            raise DataError(explain(root, folders, masks))
        return layout
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
    """Add the folders without paired files."""
    used = {path for pairs in layout.pairs.values() for pair in pairs for path in pair}
    used.update(layout.unpaired)
    lines = []
    for folder, files in folders.items():
        if left := [path for path in files if path not in used]:
            name = folder.relative_to(root).as_posix()
            lines.append(f"{len(left)} files in {name}")
    return replace(layout, left_out=tuple(lines))


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder below root with images, and these images; follow links."""
    for folder, names in walk(root):
        files = [folder / name for name in names]
        files = [file for file in files if file.suffix.lower() in MASK_SUFFIXES]
        if files:
            yield folder, files


def _describe(parts: tuple[str, ...], files: list[Path]) -> tuple[bool, str, str]:
    """Return whether a folder contains masks, its path with `{split}`, and its split."""
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
    # The search includes deeper folders, such as one per city.
    return is_mask, "/".join(words[: depth or None]) or ".", split


def _looks_like_a_mask(path: Path) -> bool:
    try:
        with Image.open(path, formats=mask_formats(path)) as image:
            few = image.mode in ("P", "1") or image.convert("RGB").getcolors(64) is not None
            return image.format not in LOSSY_FORMATS and few
    except (OSError, SyntaxError, ValueError):
        return False


def _candidates(
    images: Mapping[str, set[str]], masks: Mapping[str, set[str]]
) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield image folder, mask folder (possibly equal) and splits of possible layouts."""
    splits = {**masks, **images}
    separate = [(image, mask) for image in images for mask in masks if image != mask]
    for image, mask in [*separate, *((folder, folder) for folder in splits)]:
        if image != mask and (image == "." or mask.startswith(f"{image}/")):
            continue  # masks inside the image folder would be read as images
        common = sorted(splits[image] & splits[mask])
        train = [name for name in common if re.fullmatch(_TRAIN, name, re.I)]
        held_out = [name for name in common if re.fullmatch(_HELD_OUT, name, re.I)]
        if train and held_out:
            # Prefer val to test, which is for the final score: "val" > "test".
            yield image, mask, (train[0], max(held_out))
        else:
            for name in common:
                yield image.replace(SPLIT, name), mask.replace(SPLIT, name), ()


def _pair(
    root: Path, image_folder: str, mask_folder: str, splits: tuple[str, ...]
) -> Layout | None:
    pairs: dict[str, list[tuple[Path, Path]]] = {}
    unpaired: list[Path] = []
    unpaired_masks: list[Path] = []
    names: Names | None = None
    for split in splits or ("",):
        images, masks = (root / f.replace(SPLIT, split) for f in (image_folder, mask_folder))
        try:
            names = names or _names(images, masks)
            if names is None:
                return None
            image_of, mask_of = find_pairs(images, masks, names)
        except DataError:
            return None
        pairs[split] = [(image_of[stem], mask_of[stem]) for stem in image_of if stem in mask_of]
        if not pairs[split]:
            return None
        unpaired += [image_of[stem] for stem in image_of if stem not in mask_of]
        unpaired_masks += [mask_of[stem] for stem in mask_of if stem not in image_of]
    if splits and Path(image_folder).name == Path(mask_folder).name == SPLIT:
        # `Folder` searches for splits in the last folder by itself.
        image_folder, mask_folder = (
            Path(folder).parent.as_posix() for folder in (image_folder, mask_folder)
        )
    all_unpaired = (*unpaired, *unpaired_masks)
    return Layout(
        image_folder, mask_folder, names or Names(), splits, pairs, all_unpaired,
        tuple(unpaired_masks),
    )  # fmt: skip


def _names(images: Path, masks: Path) -> Names | None:
    """Return the prefixes and suffixes, or the extension of masks such as a.png beside a.jpg."""
    if images != masks:
        return find_names(find_files(images), find_files(masks, "", "", MASK_SUFFIXES), False)
    try:
        files = find_files(images, "", "", MASK_SUFFIXES)
    except DataError:  # two files with the same stem
        photos = find_files(images, "", "", (".jpg", ".jpeg"))
        for extension in MASK_SUFFIXES:
            if photos.keys() & find_files(images, extension, "", (extension,)).keys():
                return Names(mask_suffix=extension)
        return None
    return find_names(files, files, True)


def _with_lists(root: Path, layout: Layout) -> Layout:
    images, masks = root / layout.image_folder, root / layout.mask_folder
    for splits in _LISTS:
        if all((root / split).is_file() for split in splits):
            pairs = {x: read_list(root, x, images, masks, layout.names) for x in splits}
            return replace(layout, splits=splits, pairs=pairs, unpaired=(), unpaired_masks=())
    return layout


def _pair_list(root: Path) -> Layout | None:
    """Return the layout of a .csv file with a line `image,mask` per pair, and maybe a header.

    Raises:
        DataError: a line of the list names a missing file.
    """
    for path in sorted(root.glob("*.csv")):
        lines = path.read_text("utf-8-sig", "replace").splitlines()
        image, mask, *_ = [word.strip(' "') for word in [*"".join(lines[:1]).split(","), ""]]
        titled = re.search(f"{IMAGE}|file|path|name", image, re.I) and re.search(MASK, mask, re.I)
        if titled or all(name and (root / name).is_file() for name in (image, mask)):
            pairs = read_list(root, path.name, root / "images", root / "masks")
            return Layout("images", "masks", Names(), (), {"": pairs}, (), pair_list=path.name)
    return None


def _alpha_layout(root: Path, folders: Mapping[Path, list[Path]]) -> Layout | None:
    """Return the layout of cut-outs: each image is its own mask, by its alpha channel."""
    for folder, files in folders.items():
        if all(_is_cut_out(path) for path in files[:: len(files) // 5 + 1]):
            name = folder.relative_to(root).as_posix()
            pairs = {"": [(path, path) for path in files]}
            return Layout(name, name, Names(), (), pairs, ())
    return None


def _is_cut_out(path: Path) -> bool:
    try:
        with Image.open(path, formats=mask_formats(path)) as image:
            low, high = image.getchannel("A").getextrema() if image.mode in ALPHA_MODES else (0, 0)
            return low != high
    except (OSError, SyntaxError, ValueError):
        return False
