"""A trained model that takes images: `hrseg.load("runs/...").predict("street.png")`."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hrseg.errors import ConfigError, DataError
from hrseg.inference import Evaluator
from hrseg.models import Segmenter, create_model
from hrseg.models.fold import fold
from hrseg.models.normalize import Normalize
from hrseg.models.weights import load_weights, read_checkpoint
from hrseg.protocols import Protocol
from hrseg.runfolder import best_checkpoint
from hrseg.visualize import colorize, indexed, overlay

Input = str | Path | Image.Image | NDArray[np.uint8]


def load(path: str | Path, device: str = "cpu") -> Predictor:
    """Return the predictor that a run folder (its best checkpoint) or a `.ckpt` file holds.

    Raises:
        ConfigError: nothing there, or a file that hrseg did not write.
    """
    path = Path(path)
    checkpoint = best_checkpoint(path) if path.is_dir() else path
    content = read_checkpoint(checkpoint)
    facts = content.get("hrseg")
    if not isinstance(facts, dict):
        raise ConfigError(
            f"{checkpoint} does not say what it is a checkpoint of (no 'hrseg' entry).\n"
            "Build the model with hrseg.create_model and use hrseg.load_weights."
        )
    model = create_model(**facts["architecture"])
    load_weights(model, content, purpose="evaluate", origin=checkpoint)
    return Predictor(model, facts, device)


class Predictor:
    """A model with its names, colours, normalisation and protocol, ready for images."""

    def __init__(self, model: Segmenter, facts: dict[str, Any], device: str = "cpu") -> None:
        """Take a Segmenter and what its checkpoint says of it."""
        self.model = model.to(device).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.class_names: list[str] = facts["class_names"]
        self.palette: list[list[int]] = facts["palette"]
        self.flip_pairs = [tuple(pair) for pair in facts["flip_pairs"]]
        self.protocol = Protocol(**facts["protocol"])
        folded = fold(self.model)
        self.evaluator = Evaluator(
            lambda image: folded.outputs(image)["out"],
            Normalize(facts["mean"], facts["std"]).to(device),
            self.protocol,
            self.flip_pairs,
            self.model.backbone.align_corners,
        )
        self.device = device

    @torch.inference_mode()
    def predict(
        self, image: Input | Sequence[Input], scores: bool = False
    ) -> Prediction | list[Prediction]:
        """Segment a path, a PIL image, an RGB uint8 array (H, W, 3), or a list of them.

        Args:
            image: what to segment; the EXIF rotation of files and PIL images is applied.
            scores: keep the fused scores (K, H, W) by the protocol's averaging rule.

        Returns:
            A Prediction, or a list of them for a list.

        Raises:
            DataError: an unreadable file, or an array of another shape or type.
        """
        if isinstance(image, list | tuple):
            return [self._predict(item, scores) for item in image]
        return self._predict(cast(Input, image), scores)

    def _predict(self, image: Input, scores: bool) -> Prediction:
        pixels = _pixels(image)
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        result = self.evaluator(batch, keep_scores=scores)
        mask = result.pred.to(torch.uint8).cpu().numpy()
        kept = result.scores[0].cpu().numpy() if result.scores is not None else None
        return Prediction(pixels, mask, self.class_names, self.palette, kept)


@dataclass
class Prediction:
    """What the model sees in one image.

    Attributes:
        image: RGB uint8 (H, W, 3).
        mask: ids (H, W), uint8.
        class_names: a name per id.
        palette: an RGB colour per id.
        scores: float32 (K, H, W) if they were asked for.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]
    scores: NDArray[np.float32] | None = None

    def overlay(self, alpha: float = 0.5) -> NDArray[np.uint8]:
        """Return the image with the classes laid over it, RGB uint8 (H, W, 3)."""
        return overlay(self.image, self.mask, self.palette, alpha)

    def to_pil(self) -> Image.Image:
        """Return the mask as a palette image: ids that any viewer shows in the class colours."""
        return indexed(self.mask, self.palette)

    def class_areas(self) -> dict[str, float]:
        """Return the share of the image that each class covers, 0..1."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        return {
            name: float(count / self.mask.size)
            for name, count in zip(self.class_names, counts, strict=False)
        }

    def _repr_html_(self) -> str:
        """Show the overlay with a legend in Jupyter."""
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
        Image.fromarray(np.hstack([self.overlay(), colorize(self.mask, self.palette)])).save(
            buffer, "PNG"
        )
        data = base64.b64encode(buffer.getvalue()).decode()
        return f'<img src="data:image/png;base64,{data}" style="max-width:100%"><br>{legend}'


def _pixels(image: Input) -> NDArray[np.uint8]:
    if isinstance(image, str | Path):
        try:
            with Image.open(image, formats=("PNG", "JPEG", "TIFF", "WEBP", "BMP")) as opened:
                return _pixels(opened)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{image} is no readable image: {error}") from error
    if isinstance(image, Image.Image):
        upright = ImageOps.exif_transpose(image) or image
        if upright.mode.startswith("I;16"):
            # Pillow would clip at 255; training scales 16 bits down as well.
            return np.stack([(np.asarray(upright) // 257).astype(np.uint8)] * 3, 2)
        if upright.mode in ("I", "F"):
            raise DataError(
                f"got an image of mode {upright.mode}; expected 8 or 16 bits a channel."
            )
        return np.array(upright.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(
            f"got an array {image.shape} of {image.dtype}; expected RGB uint8 (H, W, 3)."
        )
    return np.ascontiguousarray(image)
