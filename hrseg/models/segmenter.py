"""Segmenter: a backbone and a head, with the upsampling to image size."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.models.activation_checkpointing import recomputed
from hrseg.models.fcn import FCNHead
from hrseg.models.hrnet import VARIANTS, HRNet
from hrseg.models.ocr import OCRHead
from hrseg.utils.registry import Registry, build, plugins_of


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` with the channels and strides of each feature, for example `HRNet`."""

    @property
    def channels(self) -> Sequence[int]: ...

    @property
    def strides(self) -> Sequence[int]: ...

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return features i (B, channels[i], ~H / strides[i], ~W / strides[i]), finest first."""


_SETTINGS = ("align_corners", "bn_momentum")
SWITCHES = {"exchange": "all", "output": "v2"}  # arguments for ablations -> default
BACKBONES: Registry[Callable[..., Backbone]] = Registry(
    "model.backbone",
    {name: partial(HRNet, name) for name in VARIANTS},
    given=[*_SETTINGS, *SWITCHES, "in_channels"],
)
HEADS: Registry[Callable[..., nn.Module]] = Registry(
    "model.head", {"fcn": FCNHead, "ocr": OCRHead}, given=[*_SETTINGS, "channels", "num_classes"]
)
register_backbone, register_head = BACKBONES.register, HEADS.register
Spec = str | Mapping[str, Any]


def create_model(
    backbone: Spec,
    head: Spec = "fcn",
    num_classes: int = 19,
    align_corners: bool = False,
    bn_momentum: float = 0.01,
    output: str = "v2",
    in_channels: int = 3,
    exchange: str = "all",
) -> "Segmenter":
    """Build a segmentation model with random weights.

    `hrseg.load_weights` loads published ones; "timm/<name>" are ImageNet weights of the Hub.

    Args:
        backbone: "hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w30", "hrnet_w32",
            "hrnet_w40", "hrnet_w44", "hrnet_w48", "hrnet_w64", or a registered name (BACKBONES); or
            `{"name": ..., argument: value}`.
        head: "fcn", "ocr", or a registered name (HEADS); or a dict as for the backbone.
        num_classes: number of output channels, 1 to 255.
        align_corners: argument of every bilinear interpolation in the model. A released checkpoint
            reproduces its published scores only with the value of its training.
        bn_momentum: weight of the newest batch in the running statistics, 0 to 1.
        output: input of the head: "v2", all four streams; "v1", only the stream of stride 4; "v1h",
            that stream after a 1x1 convolution to as many channels as v2, batch norm and ReLU;
            "stream_2", "stream_3" or "stream_4", only the stream of stride 8, 16 or 32.
        in_channels: number of channels of the images: 3 for RGB.
        exchange: fusions: "all"; "stages", the last of each stage; "final", only the last one.

    Examples:
        >>> import torch
        >>> model = create_model("hrnet_w18_small_v1", num_classes=4).eval()
        >>> image = torch.zeros(1, 3, 64, 96)  # normalised RGB
        >>> tuple(model(image).shape), tuple(model.outputs(image)["out"].shape)
        ((1, 4, 64, 96), (1, 4, 16, 24))
    """
    if not 1 <= num_classes <= 255:
        raise ConfigError(
            f"num_classes is {num_classes}.\nExpected: 1 to 255; the id 255 marks ignored pixels."
        )
    settings = {"align_corners": align_corners, "bn_momentum": bn_momentum}
    switches = {"exchange": exchange, "output": output}
    encoder = _build_backbone(backbone, in_channels, switches, **settings)
    channels = list(encoder.channels)
    decoder = build(HEADS, head, "head", channels=channels, num_classes=num_classes, **settings)
    model = Segmenter(encoder, decoder, align_corners)
    model.architecture = {
        "backbone": _plain(backbone),
        "head": _plain(head),
        "num_classes": num_classes,
        "align_corners": align_corners,
        "bn_momentum": bn_momentum,
        "output": output,
    }
    if in_channels != 3:
        model.architecture["in_channels"] = in_channels
    if exchange != SWITCHES["exchange"]:
        model.architecture["exchange"] = exchange
    model.built = _shapes(model)
    return model


def _build_backbone(
    spec: Spec, in_channels: int, switches: Mapping[str, str], **settings: Any
) -> Backbone:
    """Return a backbone.

    Raises:
        ConfigError: an invalid backbone, another number of inputs, or a switch that it lacks.
    """
    defaults = {key: value for key, value in switches.items() if value == SWITCHES[key]}
    given = {**settings, **defaults, "in_channels": in_channels}
    # A changed switch is an argument like those in `spec`: a backbone without it is refused.
    arguments = {"name": spec} if isinstance(spec, str) else spec
    chosen = {**arguments, **{key: switches[key] for key in switches if key not in defaults}}
    encoder = build(BACKBONES, chosen, "backbone", **given)
    if not isinstance(encoder, Backbone):
        raise ConfigError(
            f"The backbone {spec!r} lacks channels, strides or forward.\n"
            "Expected: an nn.Module with the attributes of hrseg.models.Backbone."
        )
    if in_channels != getattr(encoder, "in_channels", 3):
        raise ConfigError(
            f"The backbone {spec!r} has no input of {in_channels} channels.\n"
            "Expected: a backbone with the parameter and the attribute in_channels, or RGB images."
        )
    return encoder


def network_name(architecture: Mapping[str, Any]) -> str:
    """Return the name of an architecture, for example "hrnet_w48 + fcn, exchange final"."""
    parts = architecture["backbone"], architecture.get("head", "fcn")
    name = " + ".join(part if isinstance(part, str) else str(part.get("name")) for part in parts)
    changed = [key for key, value in SWITCHES.items() if architecture.get(key, value) != value]
    return ", ".join([name, *(f"{key} {architecture[key]}" for key in changed)])


def plugin_of(architecture: Mapping[str, Any]) -> str | None:
    """Return the plugin that registered the backbone or the head, if any."""
    parts = {part: [architecture.get(part, "")] for part in ("backbone", "head")}
    return plugins_of({f"model.{part}": specs for part, specs in parts.items()})


def _plain(spec: Spec) -> str | dict[str, Any]:
    if isinstance(spec, str) or set(spec) == {"name"}:
        return spec if isinstance(spec, str) else str(spec["name"])
    return {key: list(v) if isinstance(v, tuple) else v for key, v in spec.items()}


class Segmenter(nn.Module):
    """Segmentation network: a backbone, and a head that maps its list of features to logits.

    `create_model(**architecture)` builds the same model; `architecture` is plain data.

    Args:
        backbone: maps images to features; see `Backbone`.
        head: maps the list of features to `{"out": logits}`.
        align_corners: argument of the upsampling to image size; None uses the head's value.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, align_corners: bool | None = None
    ) -> None:
        super().__init__()
        self.backbone: Any = backbone
        self.head = head
        if align_corners is None:
            align_corners = getattr(head, "align_corners", False)
        self.align_corners: bool = align_corners
        self.architecture: dict[str, Any] = {}
        self.built: dict[str, tuple[int, ...]] = {}  # tensor shapes after create_model

    @property
    def recompute(self) -> bool:
        """Activation checkpointing in training; see `HRNet`."""
        return bool(getattr(self.backbone, "recompute", False))

    @recompute.setter
    def recompute(self, value: bool) -> None:
        if hasattr(self.backbone, "recompute"):
            self.backbone.recompute = value
        elif value:
            raise ConfigError(
                f"The backbone {type(self.backbone).__name__} has no activation checkpointing.\n"
                "Expected: an attribute `recompute`. Fix: model.activation_checkpointing=false"
            )

    def changed_parts(self) -> list[str]:
        """Return the parts whose tensors differ from `create_model(**architecture)`, with types."""
        changed = {name.partition(".")[0] for name, _ in _shapes(self).items() ^ self.built.items()}
        return [f"{part} {type(getattr(self, part, None)).__name__}" for part in sorted(changed)]

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits (B, K, H, W) of a normalised image (B, N, H, W), H and W >= 32."""
        return self.upsample(self.outputs(image)["out"], image.shape[-2:])

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits at head resolution, `{"out": (B, K, ceil(H / 4), ceil(W / 4))}`.

        An OCR head adds "aux", of the same shape. The divisor 4 is the backbone's first stride; of
        the output "stream_4" it is 32.
        """
        features = self.backbone(image)
        if self.recompute and self.training:
            return recomputed(self.head, features)  # type: ignore[no-any-return]
        return self.head(features)  # type: ignore[no-any-return]

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate logits (B, K, h, w) bilinearly to `size` (height, width), in float32."""
        # Argmax, softmax and losses need float32.
        x = logits.float().contiguous()
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=self.align_corners)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
