"""Pairing of images and masks, by file name or by a list file."""

import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hrseg.data.images import SUFFIXES
from hrseg.data.masks import MASK_SUFFIXES
from hrseg.errors import DataError
from hrseg.utils.text import one_line, some

_IMAGE_TITLE = re.compile("[a-z _]*(image|img|photo|rgb|input|file|path|name)[a-z _]*", re.I)


@dataclass(frozen=True)
class Names:
    """Parts of the file names around the name that an image and its mask have in common."""

    image_prefix: str = ""
    image_suffix: str = ""
    mask_prefix: str = ""
    mask_suffix: str = ""  # may contain the extension, to separate a.jpg and a.png in one folder

    def mask_of(self, name: str) -> str:
        """Return the name of the mask of a common name, for messages."""
        extension = "" if self.mask_suffix.lower().endswith(MASK_SUFFIXES) else ".png"
        return f"{self.mask_prefix}{name}{self.mask_suffix}{extension}"


def pair_files(
    images: Path, masks: Path, names: Names = Names(), skip: bool = False
) -> list[tuple[Path, Path]]:
    """Return (image, mask) paths below two folders, matched by their common name, sorted.

    With different prefixes or suffixes, images and masks may be in one folder. If `skip`, images
    without a mask and masks without an image are left out with a warning.

    Raises:
        DataError: a missing folder, no images, or unpaired files.
    """
    image_of, mask_of = find_pairs(images, masks, names)
    if not image_of:
        raise DataError(f"{images} contains no images.\nExpected: {', '.join(SUFFIXES)} files.")
    bare = [stem for stem in image_of if stem not in mask_of]
    if bare:
        count = (
            f"{len(bare)} of {len(image_of)} images in {images} have no mask: "
            f"{some([image_of[stem].name for stem in bare])}"
        )
        if not skip or len(bare) == len(image_of):
            raise DataError(
                f"{count}.\nExpected: each mask with the image's name in {masks}, e.g. "
                f"{names.mask_of(PurePosixPath(bare[0]).name)}\n"
                "Fix: add the masks, or leave these images out: data.on_error=skip"
            )
        warnings.warn(f"{count}. They are left out (data.on_error=skip).", stacklevel=2)
    unpaired = [mask for stem, mask in mask_of.items() if stem not in image_of]
    if unpaired:
        count = (
            f"{len(unpaired)} of {len(mask_of)} masks in {masks} have no image: "
            f"{some([path.name for path in unpaired])}"
        )
        if not skip:
            raise DataError(
                f"{count}.\nExpected: each image with the mask's name in {images}.\n"
                "Fix: add the images, remove the masks, or leave them out: data.on_error=skip"
            )
        warnings.warn(f"{count}. They are left out (data.on_error=skip).", stacklevel=2)
    return [(image, mask_of[stem]) for stem, image in image_of.items() if stem in mask_of]


def find_pairs(images: Path, masks: Path, names: Names) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the images and the masks below two folders by their common name.

    A mask has the key of its image, also if their names differ in upper and lower case only and
    no other file could be meant.

    Raises:
        DataError: a missing folder, or two files with the same name.
    """
    mask_of = find_files(masks, names.mask_suffix, names.mask_prefix, MASK_SUFFIXES)
    own = set(mask_of.values()) if images == masks and names != Names() else set()
    image_of = find_files(images, names.image_suffix, names.image_prefix, without=own)
    left = {stem: path for stem, path in mask_of.items() if stem not in image_of}
    bare = [stem for stem in image_of if stem not in mask_of]
    counts = Counter(stem.casefold() for stem in (*left, *bare))
    image_names = {stem.casefold(): stem for stem in bare}
    mask_of = {
        image_names.get(stem.casefold(), stem)
        if stem in left and counts[stem.casefold()] == 2
        else stem: path
        for stem, path in mask_of.items()
    }
    return image_of, mask_of


def find_files(
    folder: Path,
    suffix: str = "",
    prefix: str = "",
    extensions: tuple[str, ...] = SUFFIXES,
    without: Collection[Path] = (),
) -> dict[str, Path]:
    """Return the images below a folder by relative path without extension, prefix and suffix.

    Names without the prefix or the suffix are left out. A part `*` of the path means any folder;
    its name is the first part of the relative path.

    Args:
        folder: the folder.
        suffix: end of the names; with an extension it includes the extension of the file.
        prefix: beginning of the names.
        extensions: the extensions of the files, in lower case.
        without: files to leave out.

    Raises:
        DataError: a missing folder, or two images that differ only in their extension.
    """
    if "*" in folder.parts:
        return _in_any_folder(folder, suffix, prefix, extensions, without)
    if not folder.is_dir():
        raise DataError(
            f"The folder {folder.absolute()} does not exist.\n"
            "Expected: a folder of images. Fix: data.root=/path"
        )
    whole = suffix.lower().endswith(MASK_SUFFIXES)
    files: dict[str, Path] = {}
    for name in _image_names(folder, extensions):
        parent, _, last = (name if whole else os.path.splitext(name)[0]).rpartition("/")
        path = folder / name
        fits = last.startswith(prefix) and last.endswith(suffix)
        if not fits or len(last) < len(prefix) + len(suffix) or path in without:
            continue
        stem = last.removeprefix(prefix).removesuffix(suffix)
        first = files.setdefault(f"{parent}/{stem}" if parent else stem, path)
        if first is not path:
            raise DataError(
                f"{first} and {path.name} have the same name.\nExpected: one file for each stem. "
                "Fix: rename or remove one of them."
            )
    return files


def _in_any_folder(
    pattern: Path,
    suffix: str,
    prefix: str,
    extensions: tuple[str, ...],
    without: Collection[Path],
) -> dict[str, Path]:
    star = pattern.parts.index("*")
    base, rest = Path(*pattern.parts[:star]), pattern.parts[star + 1 :]
    return {
        f"{folder.name}/{stem}": path
        for folder in sorted(base.glob("[!.]*/"))
        if "*" in rest or folder.joinpath(*rest).is_dir()
        for stem, path in find_files(
            folder.joinpath(*rest), suffix, prefix, extensions, without
        ).items()
    }


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder below `folder` and its visible files; links are followed once.

    Raises:
        DataError: an unreadable folder.
    """
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=raise_unlisted, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(parent)) in visited:  # a link to a parent folder is a cycle
            folders.clear()
            continue
        visited.add(real)
        yield Path(parent), sorted(name for name in names if not name.startswith("."))


def raise_unlisted(error: OSError) -> None:
    """Raise the DataError of an unreadable folder, as `onerror` of `os.walk`."""
    folder = one_line(str(error.filename))
    raise DataError(
        f"The folder {folder} cannot be read: {error.strerror}.\n"
        f"Expected: a readable folder. Fix: chmod -R u+rX {shlex.quote(folder)}"
    ) from error


def _image_names(folder: Path, extensions: tuple[str, ...]) -> list[str]:
    names: list[str] = []  # strings are faster than `Path`
    for parent, files in walk(folder):
        relative = parent.relative_to(folder).as_posix()
        names += [
            f"{relative}/{name}"
            for name in files
            if os.path.splitext(name)[1].lower() in extensions
        ]
    return sorted((name.removeprefix("./") for name in names), key=lambda name: name.split("/"))


def read_list(
    root: Path, name: str, images: Path, masks: Path, names: Names = Names()
) -> list[tuple[Path, Path]]:
    """Return the (image, mask) paths of a list file `name` below `root`, in its order.

    A line is `image`, or `image mask`: paths below root, or names in the folders `images` and
    `masks` without extension. A tab separates names with spaces; # begins a comment line.
    In a .csv file a comma separates them, and the first line may be a header.

    Raises:
        DataError: a missing or empty list, a missing file, or a path outside root.
    """
    path = _inside(root, name, "The list")
    existing = ["*" in folder.parts or folder.is_dir() for folder in (images, masks)]
    common, mask_of = find_pairs(images, masks, names) if all(existing) else ({}, {})
    own = set(mask_of.values()) if images == masks else set()
    image_of = common | (find_files(images, without=own) if existing[0] else {})
    stem_of = {image: stem for stem, image in common.items()}
    pairs = []
    separator = "," if path.suffix == ".csv" else "\t"
    expected = "a list with lines `image` or `image mask` (in a .csv file `image,mask`)"
    for position, line in _lines(path, expected):
        image, mask = _columns(line, image_of, separator)
        titled = separator == "," and position.endswith(" line 1")
        if titled and _stem(image) not in image_of and _IMAGE_TITLE.fullmatch(image):
            continue
        image_path = image_of.get(_stem(image)) or _inside(root, image, position)
        same_name = mask_of.get(stem_of.get(image_path, ""))
        mask_path = _inside(root, mask, position) if mask else same_name
        if mask_path is None or not (image_path.is_file() and mask_path.is_file()):
            raise DataError(
                f"{position}: the {'mask' if image_path.is_file() else 'image'} of {line!r} does "
                f"not exist.\nExpected: names in {images} and {masks}, or paths below {root}. "
                f"A {'comma' if separator == ',' else 'tab'} separates names with spaces.\n"
                "Fix: add the file, or correct the line."
            )
        pairs.append((image_path, mask_path))
    return pairs


def read_official_list(
    root: Path,
    name: str,
    images: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    third: str = "",
) -> list[tuple[Path, Path | None]]:
    """Return the paths in a benchmark's own list file, with lines `image` or `image mask`.

    The list `name` is a path, or a path below `root`. Its columns are relative to one of the
    folders `images` and `masks`, or to `root`. `third` describes a third column, which is ignored
    with a warning.

    Raises:
        DataError: a missing or empty list, more columns, a missing file, or a path outside root.
    """
    path = Path(name) if Path(name).is_file() else root / name
    pairs: list[tuple[Path, Path | None]] = []
    ignored = False
    for position, line in _lines(path, "a list with lines `image mask`"):
        columns = line.split()
        if third and len(columns) == 3:
            columns, ignored = columns[:2], True
        if len(columns) > 2:
            raise DataError(
                f"{position} has {len(columns)} columns.\n"
                "Expected: `image mask`, or only `image`.\n"
                f"Fix: keep the first two: cut -d' ' -f1,2 {path.name} (for tabs without -d)."
            )
        mask = _existing(columns[1], masks or [root], position) if len(columns) == 2 else None
        pairs.append((_existing(columns[0], images or [root], position), mask))
    if ignored:
        warnings.warn(f"{path}: the third column is ignored ({third})", stacklevel=2)
    return pairs


def _lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Yield "path, line N" and the text of each line of a list, without comments."""
    if not path.is_file():
        raise DataError(
            f"The list {path.absolute()} does not exist.\nExpected: {expected}.\n"
            "Fix: write this file, or correct its name."
        )
    empty = True
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            empty = False
            yield f"{path}, line {number}", line.strip()
    if empty:
        raise DataError(
            f"{path} lists no images.\nExpected: one image per line.\n"
            "Fix: add the images of the split."
        )


def _inside(root: Path, name: str, position: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(
            f"{position}: {name} is outside {root}.\nExpected: a path below it.\n"
            "Fix: write the path relative to that folder, or change data.root."
        )
    return root / name


def _columns(line: str, image_of: Mapping[str, Path], separator: str) -> tuple[str, str]:
    """Return image and mask of a line; "" for a line without a mask."""
    if separator not in line and _stem(line) in image_of:
        return line, ""
    image, *rest = line.split(separator) if separator in line else line.split(maxsplit=1)
    return image.strip(' "'), rest[0].strip(' "') if rest else ""


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)


def _existing(name: str, folders: Sequence[Path], position: str) -> Path:
    for folder in folders:
        path = _inside(folder, name, position)
        if path.is_file():
            return path
    folder_names = " or ".join(map(str, folders))
    raise DataError(
        f"{position}: {name} does not exist.\nExpected: a file below {folder_names}.\n"
        "Fix: correct the line, or add the file."
    )


def suggest_root(root: Path, is_root: Callable[[Path], bool]) -> str:
    """Return "Did you mean data.root=...?" with a root at most two levels up or down.

    Return "" if `root` is right or no such folder is found.
    """
    if is_root(root):
        return ""
    # The outer folder first: archives with a folder of their own name create nested folders.
    above, below = (root.parent.parent, root.parent), (*root.glob("*/"), *root.glob("*/*/"))
    near = next((path for path in (*above, *sorted(below)) if is_root(path)), None)
    return f"Did you mean data.root={near}?" if near else ""
