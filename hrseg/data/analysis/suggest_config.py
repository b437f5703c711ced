"""Suggested config for a folder of images and masks: `hrseg init`."""

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hrseg.data.analysis.class_discovery import Classes, Color, Survey, find_classes, take_survey
from hrseg.data.analysis.folder_layout import Layout, find_layout
from hrseg.data.bands import image_header
from hrseg.data.datasets.folder import read_classes
from hrseg.errors import DataError
from hrseg.utils.text import one_line, some

VAL_FRACTION = 0.2
BACKBONE = "hrnet_w18_small_v1"
INITIAL_WEIGHTS = "imagenet"  # of `model.weights`
STEPS = 4000
RARE = 0.001


@dataclass
class Findings:
    """Layout, survey and classes of a folder, and the suggested values."""

    root: Path
    layout: Layout
    survey: Survey
    classes: Classes

    @property
    def train_count(self) -> int:
        """Number of training pairs."""
        first = len(next(iter(self.layout.pairs.values())))
        return first if self.layout.splits else first - round(first * VAL_FRACTION)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Half the median size (height, width), 256 to 512, in multiples of 32 that fit."""
        height, width = (
            max(32, int(min(max(length / 2, 256), 512, length)) // 32 * 32)
            for length in np.median(self.survey.sizes, axis=0)
        )
        return height, width

    @property
    def batch_size(self) -> int:
        """Batch size: 8, or all training images if there are fewer."""
        return max(1, min(8, self.train_count))

    @property
    def max_epochs(self) -> int:
        """Number of epochs with about 4000 steps, 20 to 500."""
        return min(500, max(20, round(STEPS * self.batch_size / max(1, self.train_count))))

    @property
    def epochs_per_validation(self) -> int:
        """Number of epochs between validations, for at most about a fifth of the time.

        A pixel takes a third of the time in validation, without a backward pass. At most 50
        validations limit the time for checkpoints and pictures.
        """
        pairs = list(self.layout.pairs.values())
        val = len(pairs[1]) if self.layout.splits else len(pairs[0]) - self.train_count
        whole, crop = np.prod(np.median(self.survey.sizes, axis=0)), np.prod(self.crop_size)
        ratio = val * whole / (3 * max(1, self.train_count) * crop)
        return max(math.ceil(4 * ratio), math.ceil(self.max_epochs / 50))

    @property
    def channels(self) -> list[int] | None:
        """Bands of images with other than one or three bands, from 1; None: red, green, blue."""
        first = next(iter(self.layout.pairs.values()))[0][0]
        try:
            bands = image_header(first).bands
        except DataError:  # one of the warnings
            return None
        return None if bands in (1, 3) else list(range(1, bands + 1))

    @property
    def shares(self) -> list[float]:
        """Share of each class in the surveyed pixels, 0..1."""
        pixels = self.survey.pixels
        return [pixels[key] / sum(pixels.values()) for key in self.classes.keys]

    @property
    def warnings(self) -> list[str]:
        """Possible problems, one per line."""
        layout, survey, classes = self.layout, self.survey, self.classes
        lines = [*classes.warnings]
        images = [path for path in layout.unpaired if path not in layout.unpaired_masks]
        if images:
            lines.append(
                f"{len(images)} images without a mask, e.g. {images[0].name}: training refuses "
                "them; data.on_error=skip leaves them out"
            )
        for files, fault in (
            (layout.unpaired_masks, "masks without an image"),
            (survey.other_size, "masks of another size than their image"),
            (tuple(survey.unreadable), "files that cannot be read"),
        ):
            if files:
                lines.append(f"{len(files)} {fault}: training refuses them, e.g. {files[0].name}")
        if survey.unreadable:
            lines.append(next(iter(survey.unreadable.values())))
        lines += [f"{count} {note}" for note, count in survey.exif.items()]
        if survey.kinds["JPEG"]:
            lines.append(f"{survey.kinds['JPEG']} JPEG masks, which blend ids: export them as PNG")
        if layout.splits and layout.splits[1].lower().startswith("test"):
            lines.append("no validation split: the test split is used for validation")
        if self.train_count < 20:
            lines.append(f"{self.train_count} images to train on: too few for a useful model")
        shares = list(zip(classes.names, self.shares, strict=True))
        if absent := [name for name, share in shares if share == 0]:
            lines.append(f"in none of {sum(survey.kinds.values())} masks: {some(absent, 5)}")
        if rare := [f"{name} {share:.3%}" for name, share in shares if 0 < share < RARE]:
            lines.append(f"rare, by pixels: {some(rare, 5)}")
        return lines


def inspect_folder(root: Path, sample: int = 200) -> Findings:
    """Read all file names, and the pixels of an even sample of the pairs.

    Raises:
        DataError: no pairs, or no masks to train on.
    """
    layout = find_layout(root)
    pairs = [pair for split in layout.pairs.values() for pair in split]
    chosen = np.unique(np.linspace(0, len(pairs) - 1, sample).astype(int))
    survey = take_survey([pairs[index] for index in chosen])
    if not survey.pixels:
        raise DataError(
            f"{root}: none of {len(chosen)} masks is a readable PNG file: {survey.kinds['JPEG']} "
            f"are JPEG, {len(survey.unreadable)} cannot be read.\n"
            "Expected: PNG masks, as JPEG blends neighbouring ids.\n"
            "Fix: export the masks as PNG from the annotation tool."
        )
    names: list[str] = []
    palette: Sequence[Color] | None = None
    if (root / "classes.json").is_file() or (root / "classes.txt").is_file():
        names, palette = read_classes(root)
    else:
        names = _numbered_names(root)
    try:
        classes = find_classes(survey, names, palette)
    except DataError as error:
        raise DataError(f"{root}: {error}") from error
    return Findings(root, layout, survey, classes)


def _numbered_names(root: Path) -> list[str]:
    """Return the names of a text file with lines "1 wall", as objectInfo150.txt; [] if missing.

    If the numbers begin at 1, the first name is "unlabelled", for id 0.
    """
    for path in sorted(root.glob("*.txt")):
        lines = path.read_text("utf-8-sig", "replace").splitlines()
        matches = [
            re.fullmatch(r"(\d+)[\s,:]+(?:[\d.]+\s+)*(.*[^\W\d].*)", x) for x in lines if x.strip()
        ]
        rows = [match for match in matches if match]
        numbers = [int(row[1]) for row in rows]
        first = numbers[0] if numbers else 2
        only_header = len(matches) - len(rows) <= (matches[:1] == [None])
        if only_header and first in (0, 1) and numbers == list(range(first, first + len(rows))):
            return ["unlabelled"] * first + [row[2].strip() for row in rows]
    return []


def write_config(findings: Findings) -> str:
    """Return the YAML text of a config for `hrseg fit`, with the findings in its first lines."""
    layout, classes = findings.layout, findings.classes
    train, val = layout.splits or ("train", "val")
    height, width = findings.crop_size
    every, bands = findings.epochs_per_validation, findings.channels
    named = [
        f"    - {_text(name)}  # {_key_text(key, classes)}, {share:.2%} of the pixels"
        for name, key, share in zip(classes.names, classes.keys, findings.shares, strict=True)
    ]
    lines = [
        *(f"# {one_line(line)}" for line in _header(findings)),
        f"name: {_text(findings.root.resolve().name or 'folder')}",
        "seed: 304",
        "data:",
        "  name: folder",
        f"  root: {_text(findings.root.resolve().as_posix())}",
        f"  image_folder: {_text(layout.image_folder)}",
        f"  mask_folder: {_text(layout.mask_folder)}",
        f"  mask_suffix: {_text(layout.mask_suffix)}",
        f"  mask_format: {classes.mask_format}",
        "  class_names:",
        *named,
        f"  palette: {json.dumps(classes.palette)}",
        f"  id_map: {classes.id_map or 'null'}  # id in the masks: position in class_names",
        f"  ignore_ids: {list(classes.ignore_ids)}  # unscored ids in the masks",
        *_other_reading(classes),
        f"  train_split: {_text(train)}",
        f"  val_split: {_text(val)}",
        f"  val_fraction: {'null' if layout.splits else VAL_FRACTION}",
        f"  batch_size: {findings.batch_size}  # over all devices",
        f"  crop_size: [{height}, {width}]  # height, width",
        *([f"  channels: {bands}  # bands of the images, from 1"] if bands else []),
        "  scales: [0.5, 2.0]  # range of the random scale of training images",
        "  workers: 2",
        "model:",
        f"  backbone: {BACKBONE}  # fast; hrnet_w18 and hrnet_w48 are better and slower",
        "  head: fcn",
        "  bn_momentum: 0.1",
        f"  weights: {INITIAL_WEIGHTS}  # downloaded once; null: random weights; or a checkpoint",
        "losses:",
        "  - {name: cross_entropy}",
        "optimizer: {name: adamw, lr: 0.001, weight_decay: 0.02}",
        "schedule: {name: poly, power: 0.9, warmup_steps: 100}",
        "inference: {protocol: plain, scales: [1.0], flip: false}",
        "trainer:",
        f"  max_epochs: {-(-findings.max_epochs // every) * every}",
        f"  check_val_every_n_epoch: {every}  # epochs between validations",
    ]
    return "\n".join(lines) + "\n"


def _header(findings: Findings) -> list[str]:
    layout, survey, classes = findings.layout, findings.survey, findings.classes
    counts = {name: len(pairs) for name, pairs in layout.pairs.items()}
    splits = ", ".join(f"{name} {count}" for name, count in counts.items() if name)
    low, middle, high = (np.percentile(survey.sizes, q, axis=0).astype(int) for q in (0, 50, 100))
    sizes = f"{middle[0]}x{middle[1]}"
    if (low != high).any():
        sizes = f"{low[0]}x{low[1]} to {high[0]}x{high[1]}, median {sizes}"
    kinds = ", ".join(f"{count} {kind}" for kind, count in survey.kinds.items())
    total = sum(survey.pixels.values())
    ignored = 1 - sum(survey.pixels[key] for key in classes.keys) / total
    question = []
    if _other_reading(classes):
        share = survey.pixels[0] / total
        question = [
            f"Id 0 ({share:.2%} of the pixels) is read as a class. If it means unlabelled, see the "
            "lines below ignore_ids."
        ]
    return [
        f"Written by `hrseg init` for {findings.root.resolve()}: check it, and name the classes.",
        f"{len(classes.names)} classes, ignored ids: "
        f"{', '.join(map(str, classes.ignore_ids)) or 'none'} ({ignored:.2%} of the pixels).",
        *question,
        f"{sum(counts.values())} images with masks: "
        f"{splits or f'{VAL_FRACTION:.0%} of them held out for validation'}.",
        f"Sizes (height x width): {sizes}. Masks read: {kinds} of {sum(counts.values())}.",
        *(f"Left out: {line}." for line in layout.left_out),
        *(f"WARNING: {warning}" for warning in findings.warnings),
    ]


def _other_reading(classes: Classes) -> list[str]:
    """Return commented config lines that read id 0 as unlabelled, if this is likely."""
    ids = classes.keys
    if classes.mask_format != "index" or classes.names[0] != "class_0" or len(ids) < 3:
        return []
    id_map = {key: position for position, key in enumerate(ids[1:])}
    return [
        "  # If 0 means unlabelled: remove class_0 above, and use these two lines instead.",
        f"  # id_map: {id_map}",
        f"  # ignore_ids: {sorted({0, *classes.ignore_ids})}",
    ]


def _key_text(key: int, classes: Classes) -> str:
    if classes.mask_format == "index":
        return f"id {key}"
    return f"colour {(key >> 16, key >> 8 & 255, key & 255)}"


def _text(value: str) -> str:
    if one_line(value) != value:
        try:
            os.fsencode(value).decode()
        except UnicodeDecodeError:
            pass
        else:
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise DataError(
                    f"{one_line(value)}: the locale cannot read this name, which is UTF-8.\n"
                    "Expected: a locale with UTF-8. Fix: export LC_ALL=C.UTF-8"
                )
        raise DataError(
            f"{one_line(value)}: a config cannot contain this name.\n"
            "Expected: printable UTF-8. Fix: rename it."
        )
    plain = re.fullmatch(r"[A-Za-z_][\w./-]*", value)
    words = ("null", "true", "false", "yes", "no", "on", "off", "y", "n")
    return value if plain and value.lower() not in words else json.dumps(value, ensure_ascii=False)
