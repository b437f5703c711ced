"""Predictor: a trained model for inference on images, and its predictions."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from hrseg.checkpoints.loading import build_model, load_model, load_weights
from hrseg.checkpoints.metadata import metadata_from_config
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError, DataError
from hrseg.inference.averaging import check_threshold
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.exported_model import Engine, is_exported, open_engine
from hrseg.inference.inputs import Input, read_pixels
from hrseg.inference.prediction import Prediction
from hrseg.metrics.binary import foreground_id
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize
from hrseg.models.optimize import PRECISIONS, inference_network
from hrseg.models.segmenter import network_name
from hrseg.utils.channels import Channels, Pixels, as_picture
from hrseg.utils.console import echo
from hrseg.utils.memory import OutOfMemory, is_out_of_memory
from hrseg.utils.registry import find

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule


def load(path: str | Path, device: str = "cpu", precision: str = "32") -> Predictor:
    """Return the predictor of a run folder (its best checkpoint) or of a file.

    Args:
        path: the folder, a `.ckpt` or `.safetensors` of hrseg, or an exported `.onnx` or `.xml`.
        device: of the model: cpu, cuda, cuda:1, mps; an `.onnx` file also runs on tensorrt, and an
            `.xml` file runs on the CPU only.
        precision: of the network: "32", "bf16" or "16"; scores are always float32.

    Raises:
        ConfigError: a missing file, a file that hrseg did not write, or a missing device.
    """
    find(PRECISIONS, precision, "precision")
    path = Path(path)
    if is_exported(path):
        engine = open_engine(path, device, precision)
        return Predictor(engine, engine.metadata, device, precision)
    model, metadata = load_model(path)
    return Predictor(model, metadata, device, precision)


def build_predictor(
    config: Config, data: SegmentationDataModule, checkpoint: Path, device: str, precision: str
) -> Predictor:
    """Return a predictor of weights without metadata, such as the authors' published weights.

    Args:
        config: of the model, the protocol and the data set.
        data: the data set of the config, for class names and colours.
        checkpoint: the file of the weights.
        device: as in `load`.
        precision: as in `load`.

    Raises:
        ConfigError: the weights do not fit the config's model, or the file contains metadata.
    """
    content = read_checkpoint(checkpoint)
    if "hrseg" in content:
        raise ConfigError(
            f"{checkpoint} has its own metadata, which --config would contradict.\n"
            "Expected: --config only for weights without metadata. Fix: leave out --config"
        )
    model = build_model(config, data)
    echo(str(load_weights(model, content, purpose="evaluate", origin=checkpoint)))
    metadata = metadata_from_config(config, data, model.architecture)
    return Predictor(model, metadata, device, precision)


class Predictor:
    """A trained model with class names, palette, normalisation and protocol.

    `load` returns one; calling it is the same as `predict`.

    Attributes:
        model: the network or exported model.
        class_names: a name per id.
        palette: an RGB colour per id.
        flip_pairs: pairs of classes (left, right) that are swapped in a mirrored image.
        protocol: scales, flip, windows, averaging.
        temperature: of the confidence, by `hrseg calibrate`; 1 without it.
        device: of the model.
        tensor_device: of images and scores; the CPU for exported files, whose runtime copies them.
        precision: of the network.
        normalize: images -> normalised images.
        channels: bands, data type and value ranges of the images; None: RGB uint8.
        evaluator: inference by the protocol.

    Examples:
        >>> import hrseg, numpy as np
        >>> model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2)
        >>> metadata = {
        ...     "class_names": ["road", "car"], "palette": [[128, 64, 128], [0, 0, 142]],
        ...     "flip_pairs": [], "mean": [0.5] * 3, "std": [0.25] * 3,
        ...     "protocol": hrseg.Protocol().to_dict(),
        ... }
        >>> predictor = Predictor(model, metadata)  # for a trained model: hrseg.load(path)
        >>> predictor
        Predictor(hrnet_w18_small_v1 + fcn, 2 classes, cpu)
        >>> image = np.zeros((40, 60, 3), np.uint8)
        >>> prediction = predictor(image)
        >>> prediction.mask.shape, prediction.mask.dtype
        ((40, 60), dtype('uint8'))
        >>> flipped = predictor.with_protocol(flip=True, scales=(0.75, 1.0))
        >>> flipped.predict(image, scores=True).probabilities().shape
        (2, 40, 60)
    """

    def __init__(
        self,
        model: Segmenter | Engine,
        metadata: dict[str, Any],
        device: str = "cpu",
        precision: str = "32",
    ) -> None:
        """Move the model to the device and fuse it; `metadata` are those of its file.

        Raises:
            ConfigError: a missing device.
        """
        self.device, self.precision = device, precision
        self.tensor_device = "cpu" if isinstance(model, Engine) else device
        try:
            model = model.to(self.tensor_device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        except (RuntimeError, AssertionError) as error:
            reason = str(error).partition("\n")[0]
            detail = "" if reason.startswith("Expected one of") else f": {reason.rstrip('.')}"
            raise ConfigError(
                f"device {device!r} cannot be used{detail}.\n"
                "Expected: cpu, cuda, cuda:1 or mps, if the machine has it, or tensorrt for .onnx "
                "files. Fix: --device cpu"
            ) from error
        self.model = model.eval()
        self.class_names: list[str] = metadata["class_names"]
        self.palette: list[list[int]] = metadata["palette"]
        self.flip_pairs = [tuple(pair) for pair in metadata["flip_pairs"]]
        self.protocol = Protocol(**metadata["protocol"])
        self.temperature = float(metadata.get("temperature") or 1.0)
        self.channels = Channels.from_dict(metadata.get("channels"))
        normalize = Normalize(metadata["mean"], metadata["std"], self.channels)
        self.normalize = normalize.to(self.tensor_device)
        if isinstance(model, Segmenter):
            network = inference_network(model, precision)
        else:
            network = lambda image: model.outputs(image)["out"]  # noqa: E731
        self.evaluator = Evaluator(
            network,
            self.normalize,
            self.protocol,
            self.flip_pairs,
            self.model.align_corners,
            foreground=foreground_id(self.class_names),
            temperature=self.temperature,
        )

    def with_protocol(self, preset: str | None = None, **changed: Any) -> Predictor:
        """Return a predictor of the same weights with another protocol.

        Args:
            preset: name of a protocol in PROTOCOLS; default: the current protocol.
            changed: fields to change, for example scales=(0.75, 1.0), flip=True.

        Raises:
            ConfigError: an unknown preset or field, or an invalid value.
        """
        base = self.protocol if preset is None else find(PROTOCOLS, preset, "protocol")
        other = copy.copy(self)
        other.protocol = base.changed(**changed)
        other.evaluator = replace(self.evaluator, protocol=other.protocol)
        return other

    @overload
    def predict(
        self, image: list[Any] | tuple[Any, ...], scores: bool = False, confidence: bool = False
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self, image: Input | Tensor, scores: bool = False, confidence: bool = False
    ) -> Prediction: ...

    def predict(
        self,
        image: Input | Tensor | list[Any] | tuple[Any, ...],
        scores: bool = False,
        confidence: bool = False,
    ) -> Prediction | list[Prediction]:
        """Return the prediction of an image, or the predictions of a list of images.

        Args:
            image: a path, a PIL image, an RGB uint8 array (H, W, 3), or an RGB uint8 tensor
                (3, H, W) or (H, W, 3). The EXIF orientation of files and PIL images is applied.
                A model of other channels accepts files with its bands, and arrays and tensors
                with its N channels and data type.
            scores: keep the fused scores (K, H, W), for `Prediction.probabilities`.
            confidence: compute the probability of each pixel's predicted class (H, W).

        Raises:
            DataError: an unreadable file, or an array of another shape or type.
            OutOfMemory: the image does not fit into memory.
        """
        if isinstance(image, list | tuple):
            return [self.segment(self._pixels(item), scores, confidence) for item in image]
        return self.segment(self._pixels(image), scores, confidence)

    __call__ = predict

    def _pixels(self, image: Input | Tensor) -> Pixels:
        return read_pixels(_array(image, self.channels), self.channels)[0]

    def __repr__(self) -> str:
        name = network_name(self.model.architecture)
        return f"Predictor({name}, {len(self.class_names)} classes, {self.device})"

    def check(self, tiles: bool = False, confidence: bool = False) -> None:
        """Raise ConfigError if the model does not support the protocol, `tiles` or `confidence`."""
        check_threshold(self.protocol, len(self.class_names))
        if isinstance(self.model, Engine):
            self.model.check(self.protocol, tiles, confidence)

    @torch.inference_mode()
    def segment(self, pixels: Pixels, scores: bool = False, confidence: bool = False) -> Prediction:
        """Return the prediction of an RGB uint8 array (H, W, 3); options as in `predict`.

        With other `channels` it is an array (H, W, N) of their data type.

        Raises:
            ConfigError: an exported file does not support the protocol.
            DataError: the array has another number of channels or data type.
            OutOfMemory: the image does not fit into memory.
        """
        self.check(confidence=confidence)
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.tensor_device)
        try:
            result = self.evaluator(batch, keep_scores=scores, confidence=confidence)
        except Exception as error:
            if not is_out_of_memory(error) or isinstance(error, OutOfMemory):
                raise
            height, width = pixels.shape[:2]
            raise OutOfMemory(
                f"out of memory: an image of {width}x{height} by the protocol {self.protocol}.\n"
                "Fix: smaller inference.scales, or a GeoTIFF, which is predicted in tiles."
            ) from error
        mask = result.pred.to(torch.uint8).cpu().numpy()
        fused = result.scores[0].cpu().numpy() if result.scores is not None else None
        sureness = result.confidence.cpu().numpy() if result.confidence is not None else None
        return Prediction(
            as_picture(pixels, self.channels),
            mask,
            self.class_names,
            self.palette,
            fused,
            self.protocol,
            sureness,
            self.temperature,
        )


def _array(image: Input | Tensor, channels: Channels | None) -> Input:
    """Return a tensor as an array (H, W, N), and other images unchanged."""
    if not isinstance(image, Tensor):
        return image
    count, dtype = (channels.count, channels.dtype) if channels else (3, "uint8")
    chw = image.ndim == 3 and image.shape[0] == count
    hwc = image.ndim == 3 and image.shape[2] == count
    if image.dtype != getattr(torch, dtype) or not (chw or hwc):
        description = f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}"
        kind = f"image, {dtype} ({count}, H, W) or (H, W, {count})"
        raise DataError(
            f"The image is a tensor {description}.\n"
            f"Expected: one {kind if channels else f'RGB {kind}, of 0..255'}.\n"
            "Fix: predict(list(batch)) for a batch; leave out ToTensor and Normalize."
        )
    return (image.permute(1, 2, 0) if chw else image).cpu().numpy()
