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
        """Return feature i (B, channels[i], ~H / strides[i], ~W / strides[i]), finest first."""


_SETTINGS = ("align_corners", "bn_momentum")
BACKBONES: Registry[Callable[..., Backbone]] = Registry(
    "model.backbone",
    {name: partial(HRNet, name) for name in VARIANTS},
    given=[*_SETTINGS, "output"],
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
) -> "Segmenter":
    """Build a segmentation model of RGB images with random weights.

    `hrseg.load_weights` loads published ones; "timm/<name>" are ImageNet weights of the Hub.

    Args:
        backbone: "hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40",
            "hrnet_w48", or a registered name (BACKBONES); or `{"name": ..., argument: value}`.
        head: "fcn", "ocr", or a registered name (HEADS); or likewise.
        num_classes: 1 to 255.
        align_corners: the rule of every bilinear interpolation in the model; a released checkpoint
            reproduces its figures only under the rule that it was trained with.
        bn_momentum: weight of the newest batch in the running statistics, 0 to 1.
        output: input of the head: "v1", only the stream of stride 4, or "v2", all four.

    Examples:
        >>> import torch
        >>> model = create_model("hrnet_w18_small_v1", num_classes=4).eval()
        >>> image = torch.zeros(1, 3, 64, 96)  # normalised RGB
        >>> tuple(model(image).shape), tuple(model.outputs(image)["out"].shape)
        ((1, 4, 64, 96), (1, 4, 16, 24))
    """
    if not 1 <= num_classes <= 255:
        raise ConfigError(f"num_classes is {num_classes}, expected 1 to 255 (255 marks void).")
    settings = {"align_corners": align_corners, "bn_momentum": bn_momentum}
    body = build(BACKBONES, backbone, "backbone", output=output, **settings)
    if not isinstance(body, Backbone):
        raise ConfigError(
            f"backbone {backbone!r} has no channels, strides or forward.\n"
            "Expected an nn.Module with the attributes of hrseg.models.Backbone."
        )
    channels = list(body.channels)
    classify = build(HEADS, head, "head", channels=channels, num_classes=num_classes, **settings)
    model = Segmenter(body, classify, align_corners)
    model.architecture = {
        "backbone": _plain(backbone),
        "head": _plain(head),
        "num_classes": num_classes,
        "align_corners": align_corners,
        "bn_momentum": bn_momentum,
        "output": output,
    }
    model.built = _shapes(model)
    return model


def network_name(architecture: Mapping[str, Any]) -> str:
    """Return the name of an architecture, for example "hrnet_w48 + fcn"."""
    parts = architecture["backbone"], architecture.get("head", "fcn")
    return " + ".join(part if isinstance(part, str) else str(part.get("name")) for part in parts)


def plugin_of(architecture: Mapping[str, Any]) -> str | None:
    """Return the plugin of the backbone or the head, if one registered them."""
    parts = {part: [architecture.get(part, "")] for part in ("backbone", "head")}
    return plugins_of({f"model.{part}": specs for part, specs in parts.items()})


def _plain(spec: Spec) -> str | dict[str, Any]:
    if isinstance(spec, str) or set(spec) == {"name"}:
        return spec if isinstance(spec, str) else str(spec["name"])
    return {key: list(v) if isinstance(v, tuple) else v for key, v in spec.items()}


class Segmenter(nn.Module):
    """Backbone and head, which takes the list of its features.

    `align_corners` is the rule of the upsampling to image size; None: the rule of the head.
    `create_model(**architecture)` builds the same model; `architecture` is plain data.
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
        self.built: dict[str, tuple[int, ...]] = {}  # shapes of the tensors by create_model

    @property
    def recompute(self) -> bool:
        """Whether training computes activations twice to save memory; see `HRNet.recompute`."""
        return bool(getattr(self.backbone, "recompute", False))

    @recompute.setter
    def recompute(self, value: bool) -> None:
        if hasattr(self.backbone, "recompute"):
            self.backbone.recompute = value
        elif value:
            raise ConfigError(
                f"the backbone {type(self.backbone).__name__} has no activation checkpointing "
                "(an attribute `recompute`).\nFix: model.activation_checkpointing=false"
            )

    def changed_parts(self) -> list[str]:
        """Return the parts with other tensors than `create_model(**architecture)`, with types."""
        changed = {name.partition(".")[0] for name, _ in _shapes(self).items() ^ self.built.items()}
        return [f"{part} {type(getattr(self, part, None)).__name__}" for part in sorted(changed)]

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits (B, K, H, W) of a normalised image (B, 3, H, W), H and W >= 32."""
        return self.upsample(self.outputs(image)["out"], image.shape[-2:])

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits at head resolution, `{"out": (B, K, ceil(H / 4), ceil(W / 4))}`.

        An OCR head adds "aux", of the same shape. The 4 is the first stride of the backbone.
        """
        features = self.backbone(image)
        if self.recompute and self.training:
            return recomputed(self.head, features)  # type: ignore[no-any-return]
        return self.head(features)  # type: ignore[no-any-return]

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate logits (B, K, h, w) bilinearly to `size` (height, width), in float32."""
        # Reduced precision ends here: argmax, softmax and losses need float32.
        x = logits.float().contiguous()
        return F.interpolate(x, tuple(size), mode="bilinear", align_corners=self.align_corners)


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
