"""Suggested config for a folder of images and masks: `hrseg init`."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hrseg.data.analysis.class_discovery import Classes, Survey, find_classes, take_survey
from hrseg.data.analysis.class_files import find_class_list
from hrseg.data.analysis.folder_layout import Layout, find_layout
from hrseg.data.analysis.split_advice import SplitAdvice, advise_split
from hrseg.data.analysis.training_settings import Machine, Measured, Settings
from hrseg.data.bands import image_header
from hrseg.errors import DataError
from hrseg.utils.text import one_line, some

VAL_FRACTION = 0.2
BACKBONE = "hrnet_w18_small_v1"
INITIAL_WEIGHTS = "imagenet"  # of `model.weights`
RARE = 0.001


@dataclass
class Findings:
    """Layout, survey and classes of a folder, and the suggested values."""

    root: Path
    layout: Layout
    survey: Survey
    classes: Classes
    split: SplitAdvice
    class_file: Path | None = None  # the names are from this file
    machine: Machine = field(default_factory=Machine.current)

    @property
    def train_count(self) -> int:
        """Number of training pairs."""
        first = len(next(iter(self.layout.pairs.values())))
        return first if self.layout.splits else first - round(first * VAL_FRACTION)

    @property
    def settings(self) -> Settings:
        """Suggested training settings."""
        pairs = list(self.layout.pairs.values())
        val = len(pairs[1]) if self.layout.splits else len(pairs[0]) - self.train_count
        height, width = np.median(self.survey.sizes, axis=0).tolist()
        aerial = self._first_image.suffix.lower() in (".tif", ".tiff")
        names, size = self.classes.names, (height, width)
        measured = Measured(self.train_count, val, size, names, self.shares, aerial)
        return Settings(measured, self.machine)

    @property
    def _first_image(self) -> Path:
        return next(iter(self.layout.pairs.values()))[0][0]

    @property
    def channels(self) -> list[int] | None:
        """Bands of images with other than one or three bands, from 1; None: red, green, blue."""
        try:
            bands = image_header(self._first_image).bands
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
                f"{len(images)} images without a mask, e.g. {images[0].name}: left out by "
                "on_error: skip. If they show only background, give each a mask of zeros"
            )
        for files, fault in (
            (layout.unpaired_masks, "masks without an image: left out by on_error: skip"),
            (survey.other_size, "masks of another size than their image: training refuses them"),
            (tuple(survey.unreadable), "files that cannot be read: training refuses them"),
        ):
            if files:
                lines.append(f"{len(files)} {fault}, e.g. {files[0].name}")
        if survey.unreadable:
            lines.append(next(iter(survey.unreadable.values())))
        lines += [f"{count} {note}" for note, count in survey.exif.items()]
        if survey.kinds["JPEG"]:
            lines.append(f"{survey.kinds['JPEG']} JPEG masks, which blend ids: export them as PNG")
        if layout.splits and layout.splits[1].lower().startswith("test"):
            lines.append("no validation split: the test split is used for validation")
        lines += self.split.warnings
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
    listed = find_class_list(root)
    try:
        classes = find_classes(survey, listed.names, listed.palette)
    except DataError as error:
        raise DataError(f"{root}: {error}") from error
    pixels = float(np.prod(np.median(survey.sizes, axis=0)))
    split = advise_split(root, layout, pixels)
    return Findings(root, layout, survey, classes, split, listed.file)


def write_config(findings: Findings) -> str:
    """Return the YAML text of a config for `hrseg fit`, with the findings in its first lines."""
    layout, classes = findings.layout, findings.classes
    train, val = layout.splits or ("train", "val")
    bands = findings.channels
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
        *_layout_lines(layout),
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
        *findings.split.lines,
        *([f"  channels: {bands}  # bands of the images, from 1"] if bands else []),
        *findings.settings.data_lines(),
        "model:",
        f"  backbone: {BACKBONE}  # fast; hrnet_w18 and hrnet_w48 are better and slower",
        "  head: fcn",
        "  bn_momentum: 0.1",
        f"  weights: {INITIAL_WEIGHTS}  # downloaded once; null: random weights; or a checkpoint",
        "losses:",
        *findings.settings.loss_lines(),
        "optimizer: {name: adamw, lr: 0.001, weight_decay: 0.02}",
        "schedule: {name: poly, power: 0.9, warmup_steps: 100}",
        "inference: {protocol: plain, scales: [1.0], flip: false, pad_multiple: 32}"
        "  # pads images to multiples of 32, the stride of the coarsest stream",
        "trainer:",
        *findings.settings.trainer_lines(),
    ]
    return "\n".join(lines) + "\n"


def _layout_lines(layout: Layout) -> list[str]:
    """Return the lines with the places and the names of images and masks."""
    if layout.pair_list:
        return [f"  pair_list: {_text(layout.pair_list)}  # a line per pair of image and mask"]
    names = {name: value for name, value in vars(layout.names).items() if value}
    return [
        f"  image_folder: {_text(layout.image_folder)}",
        f"  mask_folder: {_text(layout.mask_folder)}",
        *(f"  {name}: {_text(value)}" for name, value in names.items()),
        *["  on_error: skip  # leaves out files without a partner"] * bool(layout.unpaired),
    ]


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
        *_assumptions(findings),
        *(f"Left out: {line}." for line in layout.left_out),
        *(f"WARNING: {warning}" for warning in findings.warnings),
    ]


def _assumptions(findings: Findings) -> list[str]:
    """Return a line on the pairs and a line on the names of the classes."""
    layout, lines = findings.layout, []
    pairs = next(iter(layout.pairs.values()))
    if pairs:
        image, mask = (os.path.relpath(path, findings.root) for path in pairs[0])
        how = f"by {layout.pair_list}" if layout.pair_list else "by name"
        lines.append(f"Pairs {how}, for example {image} and {mask}.")
    if findings.class_file:
        lines.append(f"Class names from {findings.class_file.relative_to(findings.root)}.")
    if findings.classes.mask_format == "alpha":
        lines.append("The classes are in the alpha channel (transparency) of the masks.")
    return lines


def _other_reading(classes: Classes) -> list[str]:
    """Return commented config lines that read id 0 as unlabelled, if this is likely."""
    ids = classes.keys
    if classes.mask_format == "rgb" or classes.names[0] != "class_0" or len(ids) < 3:
        return []
    id_map = {key: position for position, key in enumerate(ids[1:])}
    return [
        "  # If 0 means unlabelled: remove class_0 above, the first of the class_weights below if",
        "  # there are any, and use these two lines instead.",
        f"  # id_map: {id_map}",
        f"  # ignore_ids: {sorted({0, *classes.ignore_ids})}",
    ]


def _key_text(key: int, classes: Classes) -> str:
    if classes.mask_format != "rgb":
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
