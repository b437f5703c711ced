"""Schema of the config's section `data`: options of every data set, and of single ones."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from hrseg.config.parts import Part
from hrseg.config.protocols import Color, Side
from hrseg.utils.augmentations import Augmentation
from hrseg.utils.validation import Checked, expected, option

Sides = tuple[Side, Side]


class DataConfig(Checked):
    """Options of every data set: those of `hrseg.data.options.DataOptions`."""

    name: str = option("name of the data set")
    root: str = option("folder of the data set")
    train_split: str = option("name of the training split", "train")
    val_split: str = option("name of the validation split", "val")
    test_split: str = option("name of the split to predict for a benchmark server", "test")
    batch_size: int = option("images per optimizer step, over all devices", 8, ge=1)
    crop_size: Sides = option("training crop (height, width), in pixels", (256, 256))
    scales: tuple[Annotated[float, Field(ge=0.01)], ...] = option(
        "random scale: one of (first, last, step), last included, or uniform in (low, high)",
        (0.5, 2.1, 0.1),
    )
    base_size: int | None = option(
        "long side of training images at scale 1, in pixels; null: their own",
        None,
        ge=32,
    )
    squash: Sides | None = option(
        "first size of training images (height, width), without their aspect ratio", None
    )
    flip: float = option("probability of a horizontal flip in training", 0.5, ge=0, le=1)
    photometric: float = option(
        "strength of random brightness, contrast and colour; 0: none", 0.0, ge=0, le=2
    )
    augment: tuple[Annotated[Augmentation, Part("data.augment")], ...] = option(
        "further random transforms of training crops, in this order",
        (),
        examples=[("rotate90", "blur")],
    )
    class_uniform: float = option(
        "share of training crops with class-balanced sampling: around a uniformly drawn class",
        0.0,
        ge=0,
        le=1,
    )
    channels: tuple[Annotated[int, Field(ge=1, le=512)], ...] | None = option(
        "bands of the images, counted from 1; null: red, green, blue",
        None,
        min_length=1,
        examples=[(4, 3, 2, 8)],
    )
    value_range: tuple[float, float] | None = option(
        "values (low, high) that become 0 and 1; null: 0 to 255 for 8 bits, measured for 16 bits",
        None,
        examples=[(0, 4000)],
    )
    cache: str | None = option("folder of `hrseg data cache` with the decoded images", None)
    workers: int = option("data loading processes; 0: load in the main process", 2, ge=0)
    worker_timeout: float | None = option(
        "seconds per sample until a data worker counts as hung; null: no limit", 300.0, ge=0
    )
    on_error: Literal["fail", "skip"] = option(
        "unreadable images and masks: fail, or skip and list them (at most 10 %)", "fail"
    )
    manifest: str | None = option(
        "file of `hrseg data check --hash` with SHA-256 sums, compared when files are read", None
    )

    @field_validator("scales")
    @classmethod
    def _whole_steps(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        whole = len(scales) in (2, 3) and scales[0] <= scales[1]
        if whole and len(scales) == 3:
            steps = (scales[1] - scales[0]) / scales[2]
            whole = abs(steps - round(steps)) <= 1e-6
        if not whole:
            raise expected(
                "(first, last, step) with whole steps from first to last, e.g. [0.5, 2.1, 0.1], "
                "or (low, high)."
            )
        return scales

    @field_validator("value_range")
    @classmethod
    def _low_and_high(cls, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if value_range is not None and value_range[0] >= value_range[1]:
            raise expected("low below high, e.g. [0, 4000].")
        return value_range


class PascalContextConfig(DataConfig):
    """PASCAL-Context in a VOC2010 folder, with masks of scripts/prepare_pascal_context."""

    num_classes: int = option("number of classes: 59, or 60 with the background", 59, ge=59, le=60)


class SyntheticConfig(DataConfig):
    """Street-like scenes drawn by hrseg, written once to `root`."""

    num_train: int = option("number of training images", 64, ge=1)
    num_val: int = option("number of validation images", 16, ge=1)
    image_size: Sides = option("size of a scene (height, width), in pixels", (192, 256))


class FolderConfig(DataConfig):
    """The user's own images and masks."""

    class_names: tuple[str, ...] = option(
        "class names by train id; empty: those in classes.json or classes.txt",
        (),
        examples=[("road", "sky")],
    )
    palette: tuple[Color, ...] | None = option(
        "RGB colours by train id", None, examples=[((128, 64, 128), (70, 130, 180))]
    )
    image_folder: str = option("folder of the images, relative to root", "images")
    mask_folder: str = option("folder of the masks, relative to root", "masks")
    mask_suffix: str = option("end of a mask's name after the common name, e.g. _mask", "")
    mask_prefix: str = option("beginning of a mask's name, e.g. label_", "")
    image_prefix: str = option("beginning of an image's name, e.g. image_", "")
    image_suffix: str = option("end of an image's name after the common name, e.g. _sat", "")
    pair_list: str | None = option(
        "list of all pairs instead of folders, a .csv file of image,mask relative to root", None
    )
    mask_format: Literal["index", "rgb", "alpha"] = option(
        "class ids (palette PNGs too), RGB colours, or values of the alpha channel", "index"
    )
    id_map: dict[int, int] | None = option(
        "train id by raw id; train id 255 is ignored", None, examples=[{0: 0, 7: 1}]
    )
    ignore_ids: tuple[int, ...] = option("raw ids ignored in training and scores", (255,))
    val_fraction: float | None = option(
        "share of the images for validation, without split folders", None, gt=0, lt=1
    )
    group_by: str | None = option(
        "groups of images on one side of val_fraction: a regular expression over the path, whose "
        "first group is the group, or a CSV file below root (FILE.csv or FILE.csv:COLUMN)",
        None,
        examples=["^(.+)_"],
    )
    split_seed: int = option("seed of the held-out share", 304, ge=0)

    @field_validator("group_by")
    @classmethod
    def _pattern_or_table(cls, group_by: str | None) -> str | None:
        try:
            re.compile(group_by or "")
        except re.error as error:
            raise expected(
                f'a regular expression, e.g. "^(.+)_", or a CSV file; this one is invalid: {error}.'
            ) from error
        return group_by
