"""Prediction of an image: class ids, scores and confidence, as pictures and files."""

from __future__ import annotations

import base64
import html
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from hrseg.inference.averaging import probabilities
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import replacing
from hrseg.utils.text import one_line
from hrseg.visualize import colorize, indexed, overlay


@dataclass(repr=False)
class Prediction:
    """The prediction of one image.

    Attributes:
        image: the image as RGB uint8 (H, W, 3); of other bands the first three, stretched.
        mask: predicted ids, uint8 (H, W).
        class_names: a name per id.
        palette: an RGB colour per id.
        scores: fused scores, float32 (K, H, W), on request.
        protocol: of the inference.
        confidence: probability of the predicted class, float32 (H, W), on request.
        temperature: of the confidence and of the probabilities.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    class_names: list[str]
    palette: list[list[int]]
    scores: NDArray[np.float32] | None = None
    protocol: Protocol = field(default_factory=Protocol)
    confidence: NDArray[np.float32] | None = None
    temperature: float = 1.0

    def probabilities(self) -> NDArray[np.float32]:
        """Return the normalised scores, float32 (K, H, W), which sum to 1 over the classes.

        Raises:
            ConfigError: the scores were not kept.
        """
        if self.scores is None:
            raise ConfigError(
                "The scores were not kept.\nExpected: a prediction with scores. "
                "Fix: predict(image, scores=True)"
            )
        scores, count = torch.from_numpy(self.scores)[None], len(self.protocol.scales)
        return probabilities(scores, self.protocol.average, count, self.temperature)[0].numpy()

    def confidence_map(self) -> NDArray[np.uint8]:
        """Return 255 x the confidence, rounded, uint8 (H, W).

        Raises:
            ConfigError: the confidence was not computed.
        """
        if self.confidence is None:
            raise ConfigError(
                "The confidence was not computed.\nExpected: a prediction with confidence. "
                "Fix: predict(image, confidence=True)"
            )
        return np.rint(255 * self.confidence).astype(np.uint8)

    def pseudo_labels(self, smallest: float) -> NDArray[np.uint8]:
        """Return the ids for training, uint8 (H, W): 255 where the confidence is too small.

        Args:
            smallest: confidence, 0..1; compared with the rounded values of `confidence_map`.

        Raises:
            ConfigError: the confidence was not computed.
        """
        unsure = self.confidence_map() < 255 * smallest
        return np.where(unsure, IGNORE_INDEX, self.mask).astype(np.uint8)

    def overlay(self, alpha: float = 0.5) -> NDArray[np.uint8]:
        """Return the image with class colours of opacity `alpha`, RGB uint8 (H, W, 3)."""
        return overlay(self.image, self.mask, self.palette, alpha)

    def to_pil(self) -> Image.Image:
        """Return the ids as a palette image, which viewers show in the class colours."""
        return indexed(self.mask, self.palette)

    def save(self, path: str | Path) -> None:
        """Write the ids as a palette PNG.

        Raises:
            ConfigError: another suffix than `.png`.
        """
        if Path(path).suffix.lower() != ".png":
            raise ConfigError(
                f"{path} does not end in .png.\n"
                "Expected: a PNG, because other formats change class ids.\n"
                "Fix: save(...png), or PIL.Image.fromarray(prediction.overlay()) for a picture."
            )
        with replacing(Path(path)) as partial:
            self.to_pil().save(partial, "PNG")

    def class_areas(self) -> dict[str, float]:
        """Return the fraction of the image that each class covers, 0..1."""
        counts = np.bincount(self.mask.ravel(), minlength=len(self.class_names))
        areas = dict.fromkeys(self.class_names, 0.0)
        shares = (counts / self.mask.size).tolist()
        for name, share in zip(self.class_names, shares, strict=False):
            areas[name] += share  # files of earlier versions may contain a name twice
        return areas

    def __repr__(self) -> str:
        height, width = self.mask.shape
        areas = sorted(self.class_areas().items(), key=lambda item: -item[1])[:3]
        largest = ", ".join(f"{one_line(name)} {area:.1%}" for name, area in areas if area)
        return f"Prediction({height}x{width}, {largest})"

    def _repr_html_(self) -> str:
        """Return the overlay, the mask and a legend as HTML for Jupyter."""
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
