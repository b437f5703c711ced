"""Options of all data sets, with defaults and limits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, cast, get_type_hints

from pydantic import Field, PlainValidator, create_model

from hrseg.utils.augmentations import AUGMENTATIONS, Augmentation
from hrseg.utils.validation import Arguments, named_model

if TYPE_CHECKING:
    Sides = Sequence[int]
    Scales = Sequence[float]
    Augment = Sequence[str | Mapping[str, Any] | Augmentation]
    Bands = Sequence[int]
    ValueRange = Sequence[float]
else:
    Side = Annotated[int, Field(ge=32, le=2**16)]
    Sides = tuple[Side, Side]
    Scales = tuple[Annotated[float, Field(ge=0.01)], ...]
    Augment = tuple[
        Annotated[Augmentation, PlainValidator(lambda part: named_model(part, AUGMENTATIONS))], ...
    ]
    Bands = tuple[Annotated[int, Field(ge=1, le=512)], ...]
    ValueRange = tuple[float, float]


class DataOptions(TypedDict, total=False):
    """Keyword arguments of every data set; `hrseg.config.data_schema.DataConfig` describes them."""

    batch_size: Annotated[int, Field(8, ge=1)]
    crop_size: Annotated[Sides, Field((256, 256))]
    scales: Annotated[Scales, Field((0.5, 2.1, 0.1))]
    base_size: Annotated[int | None, Field(None, ge=32)]
    workers: Annotated[int, Field(2, ge=0)]
    seed: Annotated[int, Field(304, ge=0)]
    train_split: Annotated[str, Field("train")]
    val_split: Annotated[str, Field("val")]
    test_split: Annotated[str, Field("test")]
    squash: Annotated[Sides | None, Field(None)]
    flip: Annotated[float, Field(0.5, ge=0, le=1)]
    photometric: Annotated[float, Field(0.0, ge=0, le=2)]
    augment: Annotated[Augment, Field(())]
    class_uniform: Annotated[float, Field(0.0, ge=0, le=1)]
    channels: Annotated[Bands | None, Field(None, min_length=1, examples=[(4, 3, 2, 8)])]
    value_range: Annotated[ValueRange | None, Field(None, examples=[(0, 4000)])]
    cache: Annotated[str | Path | None, Field(None)]
    worker_timeout: Annotated[float | None, Field(300.0, ge=0)]
    on_error: Annotated[Literal["fail", "skip"], Field("fail")]
    manifest: Annotated[str | Path | None, Field(None)]


class _Options(Arguments):
    prefix = "data."


_hints: dict[str, Any] = get_type_hints(DataOptions, include_extras=True)
OptionsModel: type[Arguments] = create_model("OptionsModel", __base__=_Options, **_hints)
DEFAULTS = {name: field.default for name, field in OptionsModel.model_fields.items()}


def complete(options: DataOptions) -> DataOptions:
    """Return all options, with defaults; ConfigError: an unknown option or an invalid value."""
    return cast(DataOptions, dict(OptionsModel(**options)))
