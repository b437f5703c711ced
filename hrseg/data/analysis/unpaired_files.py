"""Error message for a folder without pairs of images and masks."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

from hrseg.data.analysis.name_patterns import IMAGE, MASK, class_endings
from hrseg.data.images import SUFFIXES
from hrseg.utils.text import some

_DATA = (".npy", ".npz", ".tif", ".tiff", ".bmp", ".webp", ".json", ".xml", ".mat", ".gif")


def explain(root: Path, folders: Mapping[Path, list[Path]], masks: Collection[str]) -> str:
    """Return the error message for a folder without pairs.

    Args:
        root: the folder.
        folders: the image files of each folder below it.
        masks: the folders of masks, relative to root.
    """
    files = [path.relative_to(root) for paths in folders.values() for path in paths]
    mask_folders = [folder for folder in masks if folder != "."]
    is_mask = [any(map(path.is_relative_to, mask_folders)) or _named_mask(path) for path in files]
    images = [path for path, mask in zip(files, is_mask, strict=True) if not mask]
    labels = [path for path, mask in zip(files, is_mask, strict=True) if mask]
    return (
        _per_class(root, images, labels)
        or _near_pair(root, images, labels)
        or _other_formats(root)
        or _parent_folder(root)
        or _no_pairs(root, folders)
    )


def _named_mask(path: Path) -> bool:
    return re.search(MASK, path.stem, re.I) is not None


def _per_class(root: Path, images: list[Path], labels: list[Path]) -> str:
    """Return the message for a folder of binary masks for each class."""
    stems = {path.stem for path in images}
    class_folders: dict[Path, set[str]] = {}
    for path in labels:
        if path.stem in stems and len(path.parts) > 2:
            class_folders.setdefault(path.parent, set()).add(path.parent.name)
    names = sorted(folder.name for folder in class_folders)
    ends = class_endings(stems, [path.stem for path in labels])
    if len(names) < 2 and not ends:
        return ""
    kind = f"folders {some(names)}" if len(names) > 1 else f"names with {some(ends)}"
    names = names if len(names) > 1 else [end.strip("_- .") for end in ends]
    ids = ", ".join(f"{number} = {name}" for number, name in enumerate(names[:3], 1))
    return (
        f"{root.absolute()}: there is one binary mask per class ({kind}).\n"
        "Expected: one mask per image, with the id of a class in each pixel.\n"
        f"Fix: merge the masks of an image into masks/NAME.png with 0 = background, {ids}."
    )


def _near_pair(root: Path, images: list[Path], labels: list[Path]) -> str:
    """Return the message for an image and a mask with the same number in their names."""
    first = {_last_number(path): path for path in reversed(labels)}
    for image in images:
        mask = first.get(_last_number(image)) if _last_number(image) else None
        if mask is not None and mask.stem != image.stem:
            return (
                f"{root.absolute()}: {image} and {mask} look like a pair, but their names "
                "differ.\nExpected: the same name, or with a suffix (a.jpg, a_mask.png).\n"
                f"Fix: rename them, or list the pairs in pairs.csv in {root}, with the lines:\n"
                f"image,mask   and   {image},{mask}"
            )
    return ""


def _last_number(path: Path) -> str:
    return "".join(re.findall(r"\d+", path.stem)[-1:])


def _other_formats(root: Path) -> str:
    """Return the message for files of unsupported formats."""
    names = (name for _, _, files in os.walk(root, followlinks=False) for name in files)
    kinds = Counter(Path(name).suffix.lower() for name in names)
    unsupported = [kind for kind in _DATA if kind not in SUFFIXES]
    if not (other := [f"{kinds[kind]} {kind}" for kind in unsupported if kinds[kind]]):
        return ""
    return (
        f"{root.absolute()} has no pairs of images and masks, but {some(other)} files, which are "
        "not supported.\n"
        f"Expected: images and masks as {', '.join(SUFFIXES)} files.\n"
        "Fix: write the masks as PNG: PIL.Image.fromarray(ids.astype('uint8')).save('a.png')"
    )


def _parent_folder(root: Path) -> str:
    """Return the message for a folder of images next to the folder of masks."""
    above = root.parent if root.name else root
    names = [path.name for path in above.glob("*/") if path != root and path.is_dir()]
    other = MASK if re.search(IMAGE, root.name, re.I) else IMAGE
    one_kind = re.search(f"{IMAGE}|{MASK}", root.name, re.I)
    if not one_kind or not any(re.search(other, name, re.I) for name in names):
        return ""
    return (
        f"{root.absolute()} contains only images or only masks.\n"
        "Expected: the parent folder, which contains both. "
        f"Fix: hrseg init {shlex.quote(str(above))}"
    )


def _no_pairs(root: Path, folders: Mapping[Path, list[Path]]) -> str:
    existing = some([folder.relative_to(root) for folder in folders], 4)
    return (
        f"{root.absolute()}: no images have masks of the same name "
        f"(found: {existing or f'no {chr(44).join(SUFFIXES)} files'}).\n"
        "Expected: folders images and masks, each mask named as its image (images/a.jpg, "
        "masks/a.png),\nor with a suffix (a_mask.png); splits in folders train and val.\n"
        "Fix: rename, or list the pairs in pairs.csv there, with a first line `image,mask`."
    )
