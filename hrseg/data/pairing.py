"""Pairing of images and masks, by file name or by a list file."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from hrseg.data.images import (
    SUFFIXES,
)
from hrseg.errors import DataError
from hrseg.utils.text import some


def pair_files(images: Path, masks: Path, mask_suffix: str = "") -> list[tuple[Path, Path]]:
    """Return (image, mask) paths below two folders, matched by name without extension, sorted.

    Args:
        images: folder, searched with its subfolders.
        masks: folder of the same layout; with a suffix it may be the same folder.
        mask_suffix: what a mask's stem has after the image's, for example "_mask".

    Raises:
        DataError: a folder is missing, no images, or anything without its partner.
    """
    image_of, mask_of = find_files(images), find_files(masks, mask_suffix)
    if images == masks and mask_suffix:
        image_of = {s: path for s, path in image_of.items() if not s.endswith(mask_suffix)}
    if not image_of:
        raise DataError(f"{images} holds no images; expected {', '.join(SUFFIXES)} files.")
    lonely = [image for stem, image in image_of.items() if stem not in mask_of]
    if lonely:
        example = f"{lonely[0].stem}{mask_suffix}.png"
        raise DataError(
            f"{len(lonely)} of {len(image_of)} images in {images} have no mask: {_names(lonely)}\n"
            f"expected each mask under the image's name in {masks}, e.g. {example}"
        )
    lonely = [mask for stem, mask in mask_of.items() if stem not in image_of]
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(mask_of)} masks in {masks} have no image: {_names(lonely)}\n"
            f"expected each image under the mask's name in {images}; add it or remove the mask."
        )
    return [(image, mask_of[stem]) for stem, image in image_of.items()]


def find_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images below a folder by their relative path, extension and `suffix` cut off.

    Raises:
        DataError: no such folder, or two images that differ in their extension only.
    """
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder.absolute()}\nexpected images in it; is data.root right?"
        )
    found: dict[str, Path] = {}
    for name in _image_names(folder):
        stem, path = os.path.splitext(name)[0], folder / name
        if not stem.endswith(suffix):
            continue
        first = found.setdefault(stem.removesuffix(suffix), path)
        if first is not path:
            raise DataError(
                f"{first} and {path.name} have the same name; expected one file for each stem.\n"
                "Rename or remove one of them."
            )
    return found


def _image_names(folder: Path) -> list[str]:
    """Return relative paths with slashes, sorted: as strings, faster than by `Path`."""
    names: list[str] = []
    for where, _, files in os.walk(folder):
        home = Path(where).relative_to(folder).as_posix()
        images = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
        names += [f"{home}/{name}" for name in images if not name.startswith(".")]
    return sorted((name.removeprefix("./") for name in names), key=lambda name: name.split("/"))


def _names(paths: Sequence[Path]) -> str:
    return some([path.name for path in paths])


def read_list(
    root: Path, name: str, images: Path, masks: Path, mask_suffix: str = ""
) -> list[tuple[Path, Path]]:
    """Return the (image, mask) paths that a list names, in its order.

    A line is `image`, or `image mask`: paths below root, or names in the folders of images and
    masks without extension. A tab separates names with spaces; lines that start with # are skipped.

    Args:
        root: nothing outside of it is read.
        name: the list, a path below root.
        images: where images without a path are looked for.
        masks: where the masks of images without a second column are looked for.
        mask_suffix: what a mask's stem has after the image's.

    Raises:
        DataError: no such list, nothing in it, a file that is missing, or a path out of root.
    """
    path = _inside(root, name, "the list")
    if not path.is_file():
        raise DataError(f"no list {path}; expected lines of `image`, or `image mask`.")
    image_of = find_files(images) if images.is_dir() else {}
    mask_of = find_files(masks, mask_suffix) if masks.is_dir() else {}
    stem_of = {image: stem for stem, image in image_of.items()}
    pairs = []
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}, line {number}"
        image, mask = _columns(line.strip(), image_of)
        image_path = image_of.get(_stem(image)) or _inside(root, image, where)
        named = mask_of.get(stem_of.get(image_path, ""))
        mask_path = _inside(root, mask, where) if mask else named
        if mask_path is None or not (image_path.is_file() and mask_path.is_file()):
            raise DataError(
                f"{where}: no {'mask' if image_path.is_file() else 'image'} for {line.strip()!r}\n"
                f"expected names in {images} and {masks}, or paths below {root}; "
                "a tab separates names with spaces."
            )
        pairs.append((image_path, mask_path))
    if not pairs:
        raise DataError(f"{path} lists no images; expected a line for each.")
    return pairs


def _inside(root: Path, name: str, where: str) -> Path:
    """Return a path below root; what leads out of it is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{where}: {name} leads out of {root}; expected a path below it.")
    return root / name


def _columns(line: str, image_of: Mapping[str, Path]) -> tuple[str, str]:
    """Return image and mask of a line; the mask may be empty."""
    if "\t" not in line and _stem(line) in image_of:
        return line, ""
    image, *rest = line.split("\t") if "\t" in line else line.split(maxsplit=1)
    return image.strip(), rest[0].strip() if rest else ""


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("") if path.suffix.lower() in SUFFIXES else path)


def read_official_list(
    root: Path,
    name: str,
    images: Sequence[Path] = (),
    masks: Sequence[Path] = (),
    hint: str = "",
) -> list[tuple[Path, Path | None]]:
    """Return what a benchmark's own list names: lines of `image`, or `image mask`.

    Args:
        root: the folder of the data set.
        name: the list, as it is or below root; a tab or spaces separate its columns.
        images: folders that the first column may be relative to; the first that has the file wins.
            Empty: root.
        masks: folders that the second column may be relative to, likewise.
        hint: what a further column may be, for the error.

    Raises:
        DataError: no such list, nothing in it, a line of three or more columns, a file that is
            missing, or a path out of the folders.
    """
    path = Path(name) if Path(name).is_file() else root / name
    if not path.is_file():
        raise DataError(f"no list {path.absolute()}; expected lines of `image mask`.")
    images, masks = images or [root], masks or [root]
    pairs: list[tuple[Path, Path | None]] = []
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        where = f"{path}, line {number}"
        columns = line.split()
        if not columns or columns[0].startswith("#"):
            continue
        if len(columns) > 2:
            raise DataError(
                f"{where} has {len(columns)} columns; expected `image mask`, or `image` alone."
                f"{hint}\n"
                f"Keep the first two: cut -d' ' -f1,2 {path.name} (for tabs without -d)."
            )
        mask = _existing(columns[1], masks, where) if len(columns) == 2 else None
        pairs.append((_existing(columns[0], images, where), mask))
    if not pairs:
        raise DataError(f"{path} lists no images; expected a line for each.")
    return pairs


def _existing(name: str, folders: Sequence[Path], where: str) -> Path:
    for folder in folders:
        path = _inside(folder, name, where)
        if path.is_file():
            return path
    raise DataError(f"{where}: no file {name}\nexpected it below {' or '.join(map(str, folders))}.")


def suggest_root(root: Path, holds: Callable[[Path], bool]) -> str:
    """Return "Did you mean data.root=...?" for a folder up to two levels away, "" if none is right.

    Args:
        root: the folder that was given.
        holds: whether a folder holds the data set; nothing is suggested if `root` does.
    """
    if holds(root):
        return ""
    # The outer one first: archives that unpack into a folder of their own name nest.
    above, below = (root.parent.parent, root.parent), (*root.glob("*/"), *root.glob("*/*/"))
    near = next((path for path in (*above, *sorted(below)) if holds(path)), None)
    return f"Did you mean data.root={near}?" if near else ""
