"""Data set of custom images and masks in folders."""

import codecs
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Literal, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.options import DataOptions
from hrseg.data.pairing import pair_files, read_list
from hrseg.data.transforms import Pipeline
from hrseg.errors import ConfigError, DataError
from hrseg.utils.text import one_line
from hrseg.utils.validation import check_different

Channel = Annotated[int, Field(ge=0, le=255)]
Colors = tuple[tuple[Channel, Channel, Channel], ...]
SPLIT = "{split}"
_SHARES = ("train", "val")  # splits made by `val_fraction`


class Folder(SegmentationDataModule):
    """Images and masks below one folder, matched by name, of any and mixed sizes.

    A split is a folder (`images/train`, `masks/train`) or a list file. A list
    (`train_split: train.txt`, below root) has lines `image`, `image mask`, or a name without
    extension; in a .csv file `image,mask`. Without both, a split is a share of all images.

    Args:
        root: folder of the data set.
        class_names: one per train id; empty: read from `classes.json` ({"classes": [...],
            "palette": [...]}) or `classes.txt` (a name per line) in root.
        palette: RGB colours. Index masks: one per class, or None. Colour masks: one
            per raw id, which is the position in this list.
        image_folder: folder of the images, below root. `{split}` means the name of the split, as
            in "{split}/images"; without it, the splits are folders below. "*" means any folder,
            as in "*/images".
        mask_folder: folder of the masks, below root, in the same form.
        mask_suffix: end of a mask's stem after the image's stem, for example "_mask".
        mask_format: "index" (grey or palette PNG) or "rgb" (colours of the palette).
        id_map: raw id -> train id, 255 = ignore; None: raw ids are train ids.
        ignore_ids: ignored raw ids, unless `id_map` maps them.
        val_fraction: share of the images to validate on, between 0 and 1.
        split_seed: selects this share; runs with another `seed` hold out the same images.
        transform: custom augmentation of the crops; see `SegmentationDataModule`.
        options: see `DataOptions`.

    Raises:
        ConfigError: arguments that contradict each other.
        DataError: no class names.
    """

    def __init__(
        self,
        root: str,
        class_names: Sequence[str] = (),
        palette: Sequence[Sequence[int]] | None = None,
        image_folder: str = "images",
        mask_folder: str = "masks",
        mask_suffix: str = "",
        mask_format: Literal["index", "rgb"] = "index",
        id_map: Mapping[int, int] | None = None,
        ignore_ids: Sequence[int] = (255,),
        val_fraction: float | None = None,
        split_seed: int = 304,
        transform: Pipeline | None = None,
        **options: Unpack[DataOptions],
    ) -> None:
        """Read the class names; images and masks are read later."""
        super().__init__(root, transform, **options)
        self.images, self.masks = self.root / image_folder, self.root / mask_folder
        self.mask_suffix = mask_suffix
        self.val_fraction, self.split_seed = val_fraction, split_seed
        if not class_names:
            class_names, stored = read_classes(self.root)
            palette = palette or stored
        self.class_names = _checked_names(class_names)
        self.id_table = id_table(self.num_classes, id_map, ignore_ids)
        colors = tuple((int(red), int(green), int(blue)) for red, green, blue in palette or ())
        self.mask_colors = colors if mask_format == "rgb" else None
        self.palette = self._class_colors(colors) if mask_format == "rgb" else colors
        if self.palette and len(self.palette) != self.num_classes:
            raise ConfigError(
                f"data.palette has {len(self.palette)} colours for {self.num_classes} class_names."
                "\nExpected: one for each class, or no palette."
            )

    def files(self, split: str) -> Files:
        """Return the pairs of a list file, a split folder, or a share of all images."""
        suffix, skip = self.mask_suffix, self.on_error == "skip"
        if split.endswith((".txt", ".csv")):
            return read_list(self.root, split, self.images, self.masks, suffix)
        if SPLIT in str(self.images) or any(
            (self.images / name).is_dir() for name in (self.train_split, self.val_split)
        ):
            return pair_files(_split(self.images, split), _split(self.masks, split), suffix, skip)
        pairs = pair_files(self.images, self.masks, suffix, skip)
        if self.val_fraction is None or split not in _SHARES or self.train_split == self.val_split:
            raise DataError(
                f"{self.images} has no folder {split}, and no list or share defines this split."
                f"\nExpected: data.train_split=train and data.val_split=val with data.val_fraction="
                f"{self.val_fraction or 0.2}, which makes these two splits.\n"
                "Fix: use these names, or make images/train and images/val, or lists of names "
                "(data.train_split=train.txt)."
            )
        held_out = round(len(pairs) * self.val_fraction)
        if not 0 < held_out < len(pairs):
            raise DataError(
                f"data.val_fraction {self.val_fraction} of {len(pairs)} images in {self.images} "
                "leaves a split empty.\nExpected: at least one image in each.\n"
                "Fix: change data.val_fraction, or add images."
            )
        # Ordered by a hash of the name, so that a new image moves at most one other image.
        order = sorted(pairs, key=lambda pair: self._hash(pair[0]))
        return sorted(order[:held_out] if split == "val" else order[held_out:])

    def mask_reader(self) -> MaskReader:
        """Return the reader of this mask format and id map."""
        fix = (
            f"Fix: add a name to the {self.num_classes} class_names, or the id to ignore_ids or "
            "id_map."
        )
        coloured = (
            "Fix: write a config with the colours (mask_format: rgb and a palette): "
            f"hrseg init {shlex.quote(str(self.root))}"
        )
        return MaskReader(self.id_table, fix, self.mask_colors, coloured)

    def _class_colors(self, colors: Colors) -> Colors:
        """Return the first colour of each class, for masks stored as colours."""
        if len(set(colors)) != len(colors) or not colors:
            raise ConfigError(
                "data.mask_format rgb needs a palette.\n"
                "Expected: data.palette with different colours, one per raw id."
            )
        trains = self.id_table[: len(colors)].tolist()
        for train, name in enumerate(self.class_names):
            if train not in trains:
                raise ConfigError(
                    f"data.palette has no colour for class {train} ({name}).\n"
                    "Expected: at least one for each class. Fix: add it."
                )
        return tuple(colors[trains.index(train)] for train in range(self.num_classes))

    def _hash(self, image: Path) -> str:
        base = Path(*takewhile(lambda part: part != "*", self.images.parts))
        text = f"{self.split_seed}:{image.relative_to(base).as_posix()}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


class ClassesFile(BaseModel):
    """Contents of `classes.json`."""

    model_config = ConfigDict(coerce_numbers_to_str=True)
    classes: list[str]
    palette: Colors | None = None


def read_classes(root: Path) -> tuple[list[str], Colors | None]:
    """Return class names and palette from `classes.json` or `classes.txt` in root.

    Raises:
        DataError: both files are missing, or the file is invalid.
    """
    as_json, as_text = root / "classes.json", root / "classes.txt"
    if as_json.is_file():
        try:
            text = as_json.read_bytes().removeprefix(codecs.BOM_UTF8)
            content = ClassesFile.model_validate_json(text)
        except ValidationError as error:
            raise DataError(
                f"{as_json} is invalid: {error.errors()[0]['msg']}.\n"
                'Expected: {"classes": ["road", ...], "palette": [[128, 64, 128]]}, or no palette.'
            ) from error
        return content.classes, content.palette
    if as_text.is_file():
        lines = as_text.read_text("utf-8-sig", "replace").splitlines()
        if names := [line.strip() for line in lines if line.strip()]:
            return names, None
    if not root.is_dir():
        raise DataError(
            f"The folder {root.absolute()} does not exist.\n"
            "Expected: the folder of the data set. Fix: data.root=/path"
        )
    raise DataError(
        f"The data set has no class names: data.class_names is empty, and {root} has no "
        "classes.json or classes.txt with names.\nExpected: the names in the order of the ids.\n"
        "Fix: for example data.class_names=[road,building]"
    )


def _checked_names(class_names: Sequence[str]) -> tuple[str, ...]:
    check_different(class_names, "data.class_names")
    for train, name in enumerate(class_names):
        if one_line(name) != name or len(name) > 200:
            raise ConfigError(
                f"The name of class {train} is {one_line(name)!r}.\nExpected: one line of at most "
                "200 printable characters.\nFix: correct data.class_names or classes.json."
            )
    return tuple(class_names)


def _split(folder: Path, split: str) -> Path:
    return Path(str(folder).replace(SPLIT, split)) if SPLIT in str(folder) else folder / split
