"""Model metadata stored in checkpoints and exported files: schema and validation."""

from collections.abc import Mapping, Sequence
from functools import cache
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic import create_model as create_schema

from hrseg.config.protocols import Protocol, make_protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models.normalize import default_mean_and_std
from hrseg.models.segmenter import plugin_of
from hrseg.utils.channels import Channels, Kind
from hrseg.utils.constants import __version__
from hrseg.utils.text import one_line
from hrseg.visualize import default_palette

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule

FORMAT = 1  # file format version of models of 8-bit RGB
# Increase this version if an older hrseg would misread new files. Version 2 has `channels`.
NEWEST_FORMAT = 2
_MAX_ITEMS = 20_000  # maximum number of values in the metadata, a hundred times the usual number


def first_problem(error: ValidationError) -> str:
    """Return the first error of a validation as "key: reason" on one line."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    key = ".".join(map(str, problem["loc"]))
    reason = problem["msg"].removeprefix("Value error, ")
    return one_line(f"{key}: {reason}" if key else reason)


def _printable(value: str) -> str:
    """Refuse a name with control characters or line breaks, which a terminal would interpret."""
    if one_line(value) != value:
        raise ValueError("control characters or line breaks in a name")
    return value


def _evaluable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse fields that `Protocol` does not accept."""
    try:
        Protocol(**value)
    except (TypeError, ConfigError) as error:
        raise ValueError(str(error).partition("\n")[0]) from error
    return value


def _buildable(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse arguments that `create_model` does not accept."""
    try:
        _architecture().model_validate(value)
    except ValidationError as error:
        raise ValueError(first_problem(error)) from error
    return value


Integer = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
ProtocolFields = Annotated[dict[str, Any], AfterValidator(_evaluable)]
_Id = Annotated[Integer, Field(ge=0, lt=256)]
_Color = Annotated[list[_Id], Field(min_length=3, max_length=3)]
_Pair = Annotated[list[_Id], Field(min_length=2, max_length=2)]
_Mean = Annotated[Number, Field(gt=-1e6, lt=1e6)]
_Std = Annotated[Number, Field(gt=0, lt=1e6)]


_Range = Annotated[list[Number], Field(min_length=2, max_length=2)]


class ChannelsMetadata(BaseModel):
    """Channels of images other than 8-bit RGB; see `hrseg.utils.channels.Channels`."""

    model_config = ConfigDict(frozen=True, extra="allow")

    bands: Annotated[list[Annotated[Integer, Field(ge=1)]], Field(min_length=1, max_length=512)]
    kind: Kind
    ranges: list[_Range]

    @model_validator(mode="after")
    def _one_range_each(self) -> Self:
        if len(self.ranges) != len(self.bands) or any(low >= high for low, high in self.ranges):
            raise ValueError("not one range (low, high) for each band")
        return self


class ExportMetadata(BaseModel):
    """Interface of an exported file.

    Attributes:
        input: "uint8", "uint16" or "normalized" images.
        output: "logits" at full size, "head" (logits at head resolution) or "ids".
        format: a format of `hrseg export`.
        int8: whether the weights are quantised.
        source: origin of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    input: Literal["uint8", "uint16", "normalized"]
    output: Literal["logits", "head", "ids"]
    format: str | None = None
    int8: bool = False
    source: dict[str, Any] = {}


class ModelMetadata(BaseModel):
    """Metadata for prediction with the weights of a file.

    Unknown keys are kept, because later versions only add optional keys.

    Attributes:
        architecture: arguments of `create_model`.
        class_names: one name per class.
        palette: RGB colour of each class, 0..255.
        flip_pairs: pairs of class ids that swap in a mirrored image.
        mean: mean of the normalisation, per channel, for images in 0..1.
        std: standard deviation of the normalisation, per channel.
        protocol: fields of the `Protocol` for evaluation and prediction.
        format: version of the file format.
        version: version of the hrseg that wrote the file.
        plugin: modules or files that registered parts of the training, in the form of `--plugin`.
        replaced: parts of the network that `create_model` does not build, for example "head Own".
        temperature: of the confidence, by `hrseg calibrate`; None: 1.
        export: interface of an exported file; None in a checkpoint.
        channels: bands, data type and value ranges of the images; None: RGB uint8.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    architecture: Annotated[dict[str, Any], AfterValidator(_buildable)]
    class_names: list[Name]
    palette: list[_Color]
    flip_pairs: list[_Pair]
    mean: Annotated[list[_Mean], Field(min_length=1, max_length=512)]
    std: Annotated[list[_Std], Field(min_length=1, max_length=512)]
    protocol: ProtocolFields
    format: Annotated[Integer, Field(ge=1)] = FORMAT
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.+!-]{1,40}$")] = __version__
    plugin: Annotated[str, Field(max_length=2**12), AfterValidator(_printable)] | None = None
    replaced: Annotated[str, Field(max_length=2**12), AfterValidator(_printable)] | None = None
    temperature: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    export: ExportMetadata | None = None
    channels: ChannelsMetadata | None = None

    @model_validator(mode="after")
    def _fits_the_classes(self) -> Self:
        count = self.architecture["num_classes"]
        for name in ("class_names", "palette"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"{name}: {len(getattr(self, name))} for {count} classes")
        channels = self.architecture.get("in_channels") or 3
        bands = self.channels.bands if self.channels else (1, 2, 3)
        for name, values in (("mean", self.mean), ("std", self.std), ("channels", bands)):
            if len(values) != channels:
                raise ValueError(f"{name}: {len(values)} for {channels} channels")
        if any(index >= count for pair in self.flip_pairs for index in pair):
            raise ValueError(f"flip_pairs: an id outside of the {count} classes")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain data without unset optional attributes."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


def build_metadata(
    architecture: Mapping[str, Any],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    flip_pairs: Sequence[Sequence[int]],
    mean: Sequence[float],
    std: Sequence[float],
    protocol: Protocol,
    channels: Channels | None = None,
    **optional: Any,
) -> dict[str, Any]:
    """Return the metadata of a model as plain data, without validation.

    A checkpoint must be saved even if its metadata is invalid. The arguments are the attributes of
    ModelMetadata; `optional` contains the remaining ones.
    """
    if channels is not None:
        stored = ChannelsMetadata.model_construct(**channels.to_dict())
        optional |= {"channels": stored, "format": NEWEST_FORMAT}
    metadata = ModelMetadata.model_construct(
        architecture=dict(architecture),
        class_names=list(class_names),
        palette=[list(color) for color in palette],
        flip_pairs=[list(pair) for pair in flip_pairs],
        mean=list(mean),
        std=list(std),
        protocol=protocol.to_dict(),
        **optional,
    )
    return metadata.to_dict()


def metadata_from_config(
    config: Config, data: "SegmentationDataModule", architecture: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata of a network for a config and its data set."""
    mean, std = default_mean_and_std(data.in_channels)
    channels = data.channels
    if channels is None and data.bands is not None:  # without a training, bits are not measured
        channels = Channels.of(data.bands)
        channels = None if channels.is_rgb else channels
    return build_metadata(
        architecture,
        data.class_names,
        data.palette or default_palette(data.num_classes),
        data.flip_pairs,
        mean,
        std,
        make_protocol(config.inference.protocol, dict(config.inference)),
        channels,
        plugin=plugin_of(architecture),
    )


def read_metadata(data: Any, path: str | Path) -> ModelMetadata:
    """Validate the metadata of a checkpoint or an exported file.

    Args:
        data: the stored metadata.
        path: the file, for error messages.

    Raises:
        ConfigError: if the format is newer, or metadata is missing or has a wrong type or range.
    """
    if not _is_small(data):
        raise ConfigError(
            f"{path}: The metadata is too large, or not plain data.\n"
            "Expected: a file written by hrseg. Fix: copy it again from its source."
        )
    data = dict(data) if isinstance(data, Mapping) else {}
    # First, because a newer format could look damaged.
    if isinstance(data.get("format"), int) and data["format"] > NEWEST_FORMAT:
        raise ConfigError(
            f"{path} was written by hrseg {one_line(str(data.get('version')))[:40]} in a newer "
            f"format.\nExpected: a format of hrseg {__version__} or older.\n"
            "Fix: `pip install --upgrade hrseg`"
        )
    try:
        return ModelMetadata.model_validate(data)
    except ValidationError as error:
        missing = [str(p["loc"][0]) for p in error.errors() if p["type"] == "missing"]
        problem = f"incomplete: {', '.join(missing)}"
        raise ConfigError(
            f"{path}: The metadata is {problem if missing else f'invalid: {first_problem(error)}'}"
            ".\nExpected: a file written by hrseg.\nFix: copy it again, or load its weights with "
            "hrseg.create_model and hrseg.load_weights."
        ) from error


@cache
def _architecture() -> type[BaseModel]:
    """Return the schema of `create_model`'s arguments."""
    fields: dict[str, Any] = {
        name: (parameter.annotation, ... if parameter.default is Parameter.empty else None)
        for name, parameter in signature(create_model, eval_str=True).parameters.items()
    }
    fields["num_classes"] = (int, ...)  # always stored, even if it has the default value
    config = ConfigDict(strict=True, extra="forbid")
    return create_schema("Architecture", __config__=config, **fields)


def _is_small(data: Any) -> bool:
    """Return whether data is plain and small enough to validate.

    The count also stops at lists that contain themselves or share nested lists.
    """
    pending, count = [data], 0
    while pending and count <= _MAX_ITEMS:
        value = pending.pop()
        count += 1 + (len(value) // 100 if isinstance(value, str) else 0)
        if isinstance(value, Mapping):
            pending += [*value, *value.values()]
        elif isinstance(value, list | tuple):
            pending += value
        elif value is not None and not isinstance(value, str | int | float):
            return False
    return count <= _MAX_ITEMS
