"""Predictor: a trained model that takes images, and the prediction that it returns."""

from __future__ import annotations

import base64
import copy
import html
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hrseg.checkpoints.loading import build_model, load_model, load_weights
from hrseg.checkpoints.metadata import metadata_from_config
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError, DataError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.inference.inputs import Input, read_pixels
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import PRECISIONS, inference_network
from hrseg.models.segmenter import network_name
from hrseg.utils.console import echo
from hrseg.utils.files import replacing
from hrseg.utils.memory import OutOfMemory, is_out_of_memory
from hrseg.utils.registry import find
from hrseg.utils.text import one_line
from hrseg.visualize import colorize, indexed, overlay

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule


def load(path: str | Path, device: str = "cpu", precision: str = "32") -> Predictor:
    """Return the predictor of a run folder (its best checkpoint) or of a file.

    Args:
        path: the folder, a `.ckpt` or `.safetensors` of hrseg, or an exported `.onnx` or `.xml`.
        device: of the model: cpu, cuda, cuda:1, mps; an exported file runs on the CPU only.
        precision: "32", or "bf16" or "16" for the network; scores stay in float32.

    Raises:
        ConfigError: a missing file, a file that hrseg did not write, or no such device.
    """
    find(PRECISIONS, precision, "precision")
    path = Path(path)
    if is_exported(path):
        if device != "cpu":
            raise ConfigError(
                f"{path} runs only on the CPU, not on {device!r}.\nFix: leave device out."
            )
        engine = open_engine(path, precision)
        return Predictor(engine, engine.metadata, device, precision)
    model, metadata = load_model(path)
    return Predictor(model, metadata, device, precision)


def build_predictor(
    config: Config, data: SegmentationDataModule, checkpoint: Path, device: str, precision: str
) -> Predictor:
    """Return a predictor of weights without metadata, such as published ones.

    The config gives the model and the protocol, its data set the classes and colours. The other
    arguments are those of `load`.

    Raises:
        ConfigError: the file lacks weights of the config's model, or has metadata of its own.
    """
    content = read_checkpoint(checkpoint)
    if "hrseg" in content:
        raise ConfigError(f"{checkpoint} has its own metadata.\nFix: leave --config out.")
    model = build_model(config, data)
    echo(str(load_weights(model, content, purpose="evaluate", origin=checkpoint)))
    metadata = metadata_from_config(config, data, model.architecture)
    return Predictor(model, metadata, device, precision)


class Predictor:
    """A model with its names, colours, normalisation and protocol, ready for images.

    `hrseg.load` makes one from a file or a run folder.

    Examples:
        >>> import hrseg
        >>> model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2)
        >>> from hrseg.checkpoints.metadata import build_metadata
        >>> mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        >>> colors, protocol = [(128, 64, 128), (0, 0, 142)], hrseg.Protocol()
        >>> metadata = build_metadata(
        ...     model.architecture, ["road", "car"], colors, [], mean, std, protocol
        ... )
        >>> predictor = Predictor(model, metadata)
        >>> predictor.predict(np.zeros((48, 64, 3), np.uint8)).mask.shape
        (48, 64)
    """

    def __init__(
        self,
        model: Segmenter | Engine,
        metadata: dict[str, Any],
        device: str = "cpu",
        precision: str = "32",
    ) -> None:
        """Prepare a model with the metadata of its file; see `load`."""
        try:
            model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            known = "" if reason.startswith("Expected one of") else f": {reason.rstrip('.')}"
            raise ConfigError(
                f"device {device!r} cannot be used{known}.\n"
                "Expected: cpu, cuda, cuda:1 or mps, as far as the machine has them. "
                "Fix: --device cpu"
            ) from error
        self.model = model.eval()
        self.class_names: list[str] = metadata["class_names"]
        self.palette: list[list[int]] = metadata["palette"]
        self.flip_pairs = [tuple(pair) for pair in metadata["flip_pairs"]]
        self.protocol = Protocol(**metadata["protocol"])
        self.device, self.precision = device, precision
        self.normalize = Normalize(metadata["mean"], metadata["std"]).to(device)
        if isinstance(model, Segmenter):
            network = inference_network(model, precision)
        else:
            network = lambda image: model.outputs(image)["out"]  # noqa: E731
        self.evaluator = Evaluator(
            network, self.normalize, self.protocol, self.flip_pairs, self.model.align_corners
        )

    def with_protocol(self, preset: str | None = None, **changed: Any) -> Predictor:
        """Return a predictor of the same weights with another protocol.

        It has the fields of `preset`, an entry of PROTOCOLS, or of the current protocol, except for
        those that are `changed`, for example scales=(0.75, 1.0), flip=True.

        Raises:
            ConfigError: an unknown preset or field, or a value that cannot be evaluated.
        """
        base = self.protocol if preset is None else find(PROTOCOLS, preset, "protocol")
        other = copy.copy(self)
        other.protocol = base.changed(**changed)
        other.evaluator = replace(self.evaluator, protocol=other.protocol)
        return other

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], scores: bool = False
    ) -> list[Prediction]: ...

    @overload
    def predict(self, image: Input | Tensor, scores: bool = False) -> Prediction: ...

    def predict(
        self, image: Input | Tensor | list[Any] | tuple[Any, ...], scores: bool = False
    ) -> Prediction | list[Prediction]:
        """Return the Prediction of an image, or a list of them for a list; a call does the same.

        Args:
            image: a path, a PIL image, an RGB uint8 array (H, W, 3), or an RGB uint8 tensor
                (3, H, W) or (H, W, 3). The EXIF rotation of files and PIL images is applied.
            scores: keep the fused scores (K, H, W) by the protocol's averaging rule.

        Raises:
            DataError: an unreadable file, or an array of another shape or type.
        """
        if isinstance(image, list | tuple):
            return [self.segment(read_pixels(_array(item))[0], scores) for item in image]
        return self.segment(read_pixels(_array(image))[0], scores)

    __call__ = predict

    def __repr__(self) -> str:
        name = network_name(self.model.architecture)
        return f"Predictor({name}, {len(self.class_names)} classes, {self.device})"

    def check(self, tiles: bool = False) -> None:
        """Raise ConfigError if an exported file cannot do the protocol, or tiles."""
        if isinstance(self.model, Engine):
            self.model.check(self.protocol, tiles)

    @torch.inference_mode()
    def segment(self, pixels: NDArray[np.uint8], scores: bool = False) -> Prediction:
        """Segment RGB uint8 (H, W, 3); `scores` as in `predict`.

        Raises:
            OutOfMemory: the image does not fit into the memory.
        """
        self.check()
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        try:
            result = self.evaluator(batch, keep_scores=scores)
        except Exception as error:
            if not is_out_of_memory(error) or isinstance(error, OutOfMemory):
                raise
            height, width = pixels.shape[:2]
            raise OutOfMemory(
                f"out of memory: an image of {width}x{height} by the protocol {self.protocol}.\n"
                "Less is taken by smaller inference.scales, or by tiles, in which GeoTIFFs go."
            ) from error
        mask = result.pred.to(torch.uint8).cpu().numpy()
        kept = result.scores[0].cpu().numpy() if result.scores is not None else None
        return Prediction(pixels, mask, self.class_names, self.palette, kept, self.protocol)


def _array(image: Input | Tensor) -> Input:
    """Return a tensor as an array, and other images as they are."""
    if not isinstance(image, Tensor):
        return image
    chw = image.ndim == 3 and image.shape[0] == 3
    if image.dtype != torch.uint8 or not (chw or (image.ndim == 3 and image.shape[2] == 3)):
        kind = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        raise DataError(
            f"The image is a tensor {kind}.\n"
            "Expected: one RGB image, uint8 (3, H, W) or (H, W, 3), of 0..255.\n"
            "Fix: predict(list(batch)) for a batch; leave out ToTensor and Normalize."
        )
    return (image.permute(1, 2, 0) if chw else image).cpu().numpy()


@dataclass(repr=False)
class Prediction:
    """The model's result for one image.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: ids (H, W), uint8.
        class_names: a name per id.
        palette: an RGB colour per id.
        scores: float32 (K, H, W) on request.
        protocol: by which the scores were computed.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]
    scores: NDArray[np.float32] | None = None
    protocol: Protocol = field(default_factory=Protocol)

    def probabilities(self) -> NDArray[np.float32]:
        """Return the share of each class in a pixel's scores, (K, H, W), 0..1, sums to 1.

        Raises:
            ConfigError: the scores were not kept.
        """
        if self.scores is None:
            raise ConfigError("the scores were not kept: predict(image, scores=True) keeps them.")
        scores = torch.from_numpy(self.scores)
        if self.protocol.average == "logits":
            return (scores / len(self.protocol.scales)).softmax(0).numpy()
        return (scores / scores.sum(0)).numpy()

    def overlay(self, alpha: float = 0.5) -> NDArray[np.uint8]:
        """Return the image with the classes laid over it, RGB uint8 (H, W, 3)."""
        return overlay(self.image, self.mask, self.palette, alpha)

    def to_pil(self) -> Image.Image:
        """Return the mask as a palette image: ids that any viewer shows in the class colours."""
        return indexed(self.mask, self.palette)

    def save(self, path: str | Path) -> None:
        """Write the mask as `to_pil`, a PNG, which keeps the ids.

        Raises:
            ConfigError: another suffix than `.png`.
        """
        if Path(path).suffix.lower() != ".png":
            raise ConfigError(
                f"{path} is not a .png file.\n"
                "Expected: a PNG, since other formats change class ids.\n"
                "Fix: save(...png); PIL.Image.fromarray(prediction.overlay()) is a picture."
            )
        with replacing(Path(path)) as partial:
            self.to_pil().save(partial, "PNG")

    def class_areas(self) -> dict[str, float]:
        """Return the share of the image that each class covers, 0..1."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        areas = dict.fromkeys(self.class_names, 0.0)
        for name, share in zip(self.class_names, (counts / self.mask.size).tolist(), strict=False):
            areas[name] += share  # files of earlier versions may have a name twice
        return areas

    def __repr__(self) -> str:
        height, width = self.mask.shape
        areas = sorted(self.class_areas().items(), key=lambda item: -item[1])[:3]
        largest = ", ".join(f"{one_line(name)} {area:.1%}" for name, area in areas if area)
        return f"Prediction({height}x{width}, {largest})"

    def _repr_html_(self) -> str:
        """Return the overlay with a legend for Jupyter."""
        areas = sorted(self.class_areas().items(), key=lambda item: -item[1])
        colors = dict(zip(self.class_names, self.palette, strict=False))
        legend = " ".join(
            f'<span style="white-space:nowrap"><span style="display:inline-block;width:1em;'
            f'height:1em;background:rgb{tuple(colors[name])}"></span> '
            f"{html.escape(name)} {area:.1%}</span>"
            for name, area in areas
            if area > 0
        )
        buffer = io.BytesIO()
        pair = np.hstack([self.overlay(), colorize(self.mask, self.palette)])
        Image.fromarray(pair).save(buffer, "PNG")
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" style="max-width:100%"><br>{legend}'
