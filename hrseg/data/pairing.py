"""Pairing of images and masks, by file name or by a list file."""

import os
import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from hrseg.data.images import SUFFIXES
from hrseg.errors import DataError
from hrseg.utils.text import one_line, some

_HEADERS = ("image", "images", "image_path", "file", "filename", "path", "name")


def pair_files(
    images: Path, masks: Path, mask_suffix: str = "", skip: bool = False
) -> list[tuple[Path, Path]]:
    """Return (image, mask) paths below two folders, matched by name without extension, sorted.

    A mask's stem is the image's and `mask_suffix`; with a suffix both may be in one folder.
    DataError: a missing folder, no pairs, or unpaired files. If `skip`, images without a mask are
    left out with a warning.
    """
    image_of, mask_of = find_files(images), find_files(masks, mask_suffix)
    if images == masks and mask_suffix:
        image_of = {s: path for s, path in image_of.items() if not s.endswith(mask_suffix)}
    if not image_of:
        raise DataError(f"{images} holds no images; expected {', '.join(SUFFIXES)} files.")
    unpaired = [image for stem, image in image_of.items() if stem not in mask_of]
    if unpaired:
        count = (
            f"{len(unpaired)} of {len(image_of)} images in {images} have no mask: "
            f"{some([path.name for path in unpaired])}"
        )
        if not skip or len(unpaired) == len(image_of):
            raise DataError(
                f"{count}\nexpected each mask under the image's name in {masks}, e.g. "
                f"{unpaired[0].stem}{mask_suffix}.png\n"
                "Fix: add the masks, or leave these images out: data.on_error=skip"
            )
        warnings.warn(f"{count}. They are left out (data.on_error=skip).", stacklevel=2)
    unpaired = [mask for stem, mask in mask_of.items() if stem not in image_of]
    if unpaired:
        raise DataError(
            f"{len(unpaired)} of {len(mask_of)} masks in {masks} have no image: "
            f"{some([path.name for path in unpaired])}\nexpected each image under the mask's name "
            f"in {images}; add it or remove the mask."
        )
    return [(image, mask_of[stem]) for stem, image in image_of.items() if stem in mask_of]


def find_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images below a folder by their relative path, extension and `suffix` cut off.

    A part `*` of the path stands for any folder, whose name begins the relative path.
    DataError: a missing folder, or two images that differ in their extension only.
    """
    if "*" in folder.parts:
        return _in_any_folder(folder, suffix)
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder.absolute()}\nexpected images in it; is data.root right?"
        )
    files: dict[str, Path] = {}
    for name in _image_names(folder):
        stem, path = os.path.splitext(name)[0], folder / name
        if not stem.endswith(suffix):
            continue
        first = files.setdefault(stem.removesuffix(suffix), path)
        if first is not path:
            raise DataError(
                f"{first} and {path.name} have the same name; expected one file for each stem.\n"
                "Rename or remove one of them."
            )
    return files


def _in_any_folder(pattern: Path, suffix: str) -> dict[str, Path]:
    star = pattern.parts.index("*")
    base, rest = Path(*pattern.parts[:star]), pattern.parts[star + 1 :]
    return {
        f"{folder.name}/{stem}": path
        for folder in sorted(base.glob("[!.]*/"))
        if "*" in rest or folder.joinpath(*rest).is_dir()
        for stem, path in find_files(folder.joinpath(*rest), suffix).items()
    }


def refuse_folder(error: OSError) -> None:
    """Raise the DataError of a folder that cannot be listed; the `onerror` of `os.walk`."""
    folder = one_line(str(error.filename))
    raise DataError(
        f"cannot list the folder {folder}: {error.strerror}.\n"
        f"Expected a folder that you may read. Fix: chmod -R u+rX {shlex.quote(folder)}"
    ) from error


def _image_names(folder: Path) -> list[str]:
    names: list[str] = []  # as strings, faster than by `Path`
    for parent, _, files in os.walk(folder, onerror=refuse_folder):
        home = Path(parent).relative_to(folder).as_posix()
        images = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
        names += [f"{home}/{name}" for name in images if not name.startswith(".")]
    return sorted((name.removeprefix("./") for name in names), key=lambda name: name.split("/"))


def read_list(
    root: Path, name: str, images: Path, masks: Path, mask_suffix: str = ""
) -> list[tuple[Path, Path]]:
    """Return the (image, mask) paths in a list `name` below `root`, in its order.

    A line is `image`, or `image mask`: paths below root, or names in the folders `images` and
    `masks` without extension. A tab separates names with spaces; # begins a comment line.
    In a .csv file a comma separates them, and the first line may be a header.
    DataError: a missing or empty list, a missing file, or a path out of root.
    """
    path = _inside(root, name, "the list")
    image_of = find_files(images) if "*" in images.parts or images.is_dir() else {}
    mask_of = find_files(masks, mask_suffix) if "*" in masks.parts or masks.is_dir() else {}
    stem_of = {image: stem for stem, image in image_of.items()}
    pairs = []
    separator = "," if path.suffix == ".csv" else "\t"
    expected = "a list with lines of `image`, or `image mask` (in a .csv `image,mask`)"
    for position, line in _lines(path, expected):
        image, mask = _columns(line, image_of, separator)
        if separator == "," and position.endswith(" line 1") and image.lower() in _HEADERS:
            continue
        image_path = image_of.get(_stem(image)) or _inside(root, image, position)
        named = mask_of.get(stem_of.get(image_path, ""))
        mask_path = _inside(root, mask, position) if mask else named
        if mask_path is None or not (image_path.is_file() and mask_path.is_file()):
            raise DataError(
                f"{position}: no {'mask' if image_path.is_file() else 'image'} for {line!r}\n"
                f"expected names in {images} and {masks}, or paths below {root}; "
                f"a {'comma' if separator == ',' else 'tab'} separates names with spaces."
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
    """Return the paths in a benchmark's own list: lines of `image`, or `image mask`.

    The list `name` is a path, or a path below `root`. Its columns are relative to one of the
    folders `images` and `masks`, or to `root`. `third` names the contents of a third column, which
    is ignored with a warning.
    DataError: a missing or empty list, more columns, a missing file, or a path out of root.
    """
    path = Path(name) if Path(name).is_file() else root / name
    pairs: list[tuple[Path, Path | None]] = []
    ignored = False
    for position, line in _lines(path, "lines of `image mask`"):
        columns = line.split()
        if third and len(columns) == 3:
            columns, ignored = columns[:2], True
        if len(columns) > 2:
            raise DataError(
                f"{position} has {len(columns)} columns; expected `image mask`, or only `image`.\n"
                f"Keep the first two: cut -d' ' -f1,2 {path.name} (for tabs without -d)."
            )
        mask = _existing(columns[1], masks or [root], position) if len(columns) == 2 else None
        pairs.append((_existing(columns[0], images or [root], position), mask))
    if ignored:
        warnings.warn(f"{path}: the third column is ignored ({third})", stacklevel=2)
    return pairs


def _lines(path: Path, expected: str) -> Iterator[tuple[str, str]]:
    """Yield "path, line N" and the text of each line of a list, without comments."""
    if not path.is_file():
        raise DataError(f"no list {path.absolute()}; expected {expected}.")
    empty = True
    for number, line in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            empty = False
            yield f"{path}, line {number}", line.strip()
    if empty:
        raise DataError(f"{path} lists no images; expected a line for each.")


def _inside(root: Path, name: str, position: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DataError(f"{position}: {name} leads out of {root}; expected a path below it.")
    return root / name


def _columns(line: str, image_of: Mapping[str, Path], separator: str) -> tuple[str, str]:
    """Return image and mask of a line; the mask may be empty."""
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
    raise DataError(f"{position}: no file {name}\nexpected it below {folder_names}.")


def suggest_root(root: Path, holds: Callable[[Path], bool]) -> str:
    """Return "Did you mean data.root=...?" for a folder up to two levels away that `holds` it.

    Return "" if `root` is right or nothing is known.
    """
    if holds(root):
        return ""
    # The outer one first: archives that unpack into a folder of their own name nest.
    above, below = (root.parent.parent, root.parent), (*root.glob("*/"), *root.glob("*/*/"))
    near = next((path for path in (*above, *sorted(below)) if holds(path)), None)
    return f"Did you mean data.root={near}?" if near else ""
