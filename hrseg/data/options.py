"""Options that all data sets share, with their defaults, limits and documentation."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, cast, get_type_hints

from pydantic import Field, create_model

from hrseg.utils.validation import Arguments

if TYPE_CHECKING:
    Sides = Sequence[int]
    Scales = Sequence[float]
else:
    Side = Annotated[int, Field(ge=32, le=2**16)]
    Sides = tuple[Side, Side]
    Scales = tuple[Annotated[float, Field(ge=0.01)], ...]


class DataOptions(TypedDict, total=False):
    """Keyword arguments of every data set; the config's section `data` has the same.

    Attributes:
        batch_size: global: devices x nodes x accumulation x per-device.
        crop_size: (height, width) of a training crop.
        scales: (first, last, step), drawn in steps, last included; or (low, high), uniformly.
        base_size: long side in pixels at scale 1; None: the image's own.
        workers: processes that load training data, and as many that load validation data.
        seed: with epoch and index it decides every random draw.
        train_split: name of the split to train on.
        val_split: name of the split to validate on.
        test_split: name of the split to predict for a benchmark's server; it needs no masks.
        squash: (height, width) that training images are resized to first, whatever their shape.
        flip: probability of a horizontal flip.
        photometric: strength of the colour jitter, 0 = off; see `TrainTransform`.
        class_uniform: share of the training crops, 0..1, with a class drawn uniformly; for these
            an image is drawn among those with the class. All training masks are read once.
        cache: folder of decoded images that `hrseg data cache` made; None: files are decoded.
        worker_timeout: seconds for one sample before a worker counts as hung; None or 0: for ever.
        on_error: treatment of an image or mask that cannot be read while training: "fail", or
            "skip": the crop counts as ignored, a validation image is not scored.
        manifest: file of sha256 sums that all files that are read must have; see `Manifest`.
    """

    batch_size: Annotated[int, Field(ge=1)]
    crop_size: Sides
    scales: Scales
    base_size: Annotated[int, Field(ge=32)] | None
    workers: Annotated[int, Field(ge=0)]
    seed: Annotated[int, Field(ge=0)]
    train_split: str
    val_split: str
    test_split: str
    squash: Sides | None
    flip: Annotated[float, Field(ge=0, le=1)]
    photometric: Annotated[float, Field(ge=0, le=2)]
    class_uniform: Annotated[float, Field(ge=0, le=1)]
    cache: str | Path | None
    worker_timeout: Annotated[float, Field(ge=0)] | None
    on_error: Literal["fail", "skip"]
    manifest: str | Path | None


DEFAULTS: DataOptions = {
    "batch_size": 8,
    "crop_size": (256, 256),
    "scales": (0.5, 2.1, 0.1),
    "base_size": None,
    "workers": 2,
    "seed": 304,
    "train_split": "train",
    "val_split": "val",
    "test_split": "test",
    "squash": None,
    "flip": 0.5,
    "photometric": 0.0,
    "class_uniform": 0.0,
    "cache": None,
    "worker_timeout": 300.0,
    "on_error": "fail",
    "manifest": None,
}


class _Options(Arguments):
    prefix = "data."


_fields: dict[str, Any] = {
    name: (kind, DEFAULTS.get(name))
    for name, kind in get_type_hints(DataOptions, include_extras=True).items()
}
OptionsModel: type[Arguments] = create_model("OptionsModel", __base__=_Options, **_fields)


def complete(options: DataOptions) -> DataOptions:
    """Return the options with the defaults of those that are left out.

    Raises:
        ConfigError: an unknown option, or a wrong value; the message states what was expected.
    """
    return cast(DataOptions, dict(OptionsModel(**options)))
