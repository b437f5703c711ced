"""Multi-scale, flip and sliding-window inference of one image by a protocol.

The order of the steps is the authors' (HRNet-Semantic-Segmentation, lib/datasets/base_dataset.py).
All steps after the network run on one band of rows at a time.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.inference.averaging import (
    Rule,
    averaging_rule,
    class_ids,
    in_float32,
    probabilities,
)
from hrseg.inference.score_maps import (
    Rows,
    Scales,
    bands,
    cropped,
    mapped,
    mean_of_windows,
    resized,
    sums,
    tensor_rows,
)
from hrseg.inference.windows import Size, Windows, find_windows, prepare, size_at
from hrseg.utils.memory import OutOfMemory, give_back, is_out_of_memory

Model = Callable[[Tensor], Tensor]


@dataclass
class Result:
    """Class ids and scores of one image.

    Attributes:
        pred: ids of all scales fused, uint8 (H, W).
        preds: ids of each single scale and of all scales fused, uint8 (H, W).
        scores: fused scores, float32 (1, K, H, W), on request. If exp would overflow, they are
            divided by the pixel's maximum.
        confidence: probability of the predicted class, float32 (H, W), on request.
        foreground: probability of the foreground before the temperature, float32 (H, W), on
            request and for two classes.
    """

    pred: Tensor
    preds: dict[Scales, Tensor]
    scores: Tensor | None = None
    confidence: Tensor | None = None
    foreground: Tensor | None = None


@dataclass
class Evaluator:
    """Evaluates one image at a time by a protocol.

    Attributes:
        model: normalised images (B, N, h, w) -> logits (B, K, any size), K up to 256.
        normalize: images (1, N, h, w) -> normalised images.
        protocol: scales, flip, windows, averaging.
        flip_pairs: pairs of classes (left, right) that are swapped in a mirrored image.
        align_corners: of the interpolation of logits; images never align corners.
        batch: maximum of windows and mirror images in one call of the model.
        foreground: id of the class that the threshold of the protocol decides.
        temperature: of the confidence; it changes no class.

    Raises:
        VerificationError: NaN or infinite scores.
        OutOfMemory: not even one window fits.

    Examples:
        >>> import hrseg, torch
        >>> from hrseg.models.normalize import Normalize
        >>> def red_or_green(image):  # logits: the first two channels
        ...     return image[:, :2]
        >>> protocol = hrseg.Protocol(scales=(0.5, 1.0), flip=True)
        >>> evaluate = Evaluator(red_or_green, Normalize(), protocol)
        >>> image = torch.zeros(1, 3, 40, 60, dtype=torch.uint8)
        >>> image[:, 0, :, :30] = 255
        >>> result = evaluate(image)
        >>> result.pred.shape, result.pred[0, 0].item(), result.pred[0, -1].item()
        (torch.Size([40, 60]), 0, 1)
        >>> list(result.preds)
        [(0.5,), (1.0,), (0.5, 1.0)]
    """

    model: Model
    normalize: Callable[[Tensor], Tensor]
    protocol: Protocol
    flip_pairs: Sequence[Sequence[int]] = ()
    align_corners: bool = False
    batch: int = 4
    foreground: int = 1
    temperature: float = 1.0

    @torch.inference_mode()
    def __call__(
        self,
        image: Tensor,
        size: Sequence[int] | None = None,
        keep_scores: bool = False,
        confidence: bool = False,
        every_subset: bool = False,
    ) -> Result:
        """Return the result for an image.

        Args:
            image: (1, N, H, W), such as uint8 RGB (1, 3, H, W).
            size: (height, width) of the result, by default that of the image.
            keep_scores: set `scores` of the result.
            confidence: set `confidence` and `foreground` of the result.
            every_subset: also return the ids of every subset of the scales.
        """
        scales, threshold = self.protocol.scales, self.protocol.threshold
        parts: dict[Scales, list[Tensor]] = defaultdict(list)
        kept: dict[str, list[Tensor]] = defaultdict(list)
        ranks_suffice = not (keep_scores or confidence) and threshold is None
        for band in bands(self.scores(image, size, ranks_suffice)):
            totals = sums(band, every_subset)
            for subset, scores in totals.items():
                parts[subset].append(self.class_ids(scores, len(subset)))
            if keep_scores:
                kept["scores"].append(in_float32(totals[scales]))
            if confidence:
                ids = parts[scales][-1]
                kept["confidence"].append(self.confidence(totals[scales], ids, len(scales)))
                if totals[scales].shape[1] == 2:
                    kept["foreground"].append(self._foreground(totals[scales], len(scales)))
        preds = {subset: torch.cat(ids) for subset, ids in parts.items()}
        return Result(preds[scales], preds, **{name: torch.cat(x, -2) for name, x in kept.items()})

    def class_ids(self, scores: Tensor, count: int = 1, average: str | None = None) -> Tensor:
        """Return the ids of scores (1, K, H, W) by the protocol's threshold, uint8 (H, W).

        Args:
            scores: sum over scales.
            count: number of scales in the sum.
            average: the rule of the scores, by default that of the protocol.
        """
        ids = class_ids(scores)
        if self.protocol.threshold is None:
            return ids
        chosen = self._foreground(scores, count, average) >= self.protocol.threshold
        return (chosen if self.foreground else ~chosen).to(torch.uint8)

    def confidence(
        self, scores: Tensor, ids: Tensor, count: int = 1, average: str | None = None
    ) -> Tensor:
        """Return the probability of the predicted ids (H, W), float32 (H, W), after temperature.

        The other arguments are those of `class_ids`.
        """
        average = average or self.protocol.average
        shares = probabilities(scores, average, count, self.temperature)
        return shares.gather(1, ids[None, None].long())[0, 0].float()

    def _foreground(self, scores: Tensor, count: int, average: str | None = None) -> Tensor:
        shares = probabilities(scores, average or self.protocol.average, count)
        return shares[0, self.foreground].float()

    def scores(
        self, image: Tensor, size: Sequence[int] | None = None, ranks_suffice: bool = False
    ) -> dict[float, Rows]:
        """Return the scores (1, K, *size) of each scale; `image` and `size` as in `__call__`.

        If exp would overflow or underflow, the scores are float64 and divided by exp of the image's
        largest logit, for all scales alike. With `ranks_suffice` only their order is right.
        """
        size = (int(size[0]), int(size[1])) if size else _size(image)
        prepared, kept = prepare(image, self.protocol)
        normalised = self.normalize(prepared)
        shape = _size(normalised)
        by_scale: dict[float, tuple[Size, Windows, list[Tensor]]] = {}
        for scale in self.protocol.scales:
            scaled_shape = size_at(shape, scale, self.protocol)
            windows = find_windows(scaled_shape, scale, self.protocol)
            # As in the authors' code: no antialiasing, and images never align corners.
            scaled = normalised
            if scaled_shape != shape:
                scaled = F.interpolate(normalised, scaled_shape, mode="bilinear")
            crops = self._crops(scaled, windows)
            logits = [views.contiguous() for views in self.logits(crops)]
            by_scale[scale] = scaled_shape, windows, logits
        direct = [
            scaled_shape == shape == kept == size and len(logits) == 1
            for scaled_shape, _, logits in by_scale.values()
        ]
        image_logits = [views for *_, logits in by_scale.values() for views in logits]
        rule = averaging_rule(self.protocol, image_logits, ranks_suffice and direct == [True])
        maps = {}
        for scale, (scaled_shape, windows, logits) in by_scale.items():
            rows = self._window_mean(logits, windows, scaled_shape, rule)
            rows = cropped(resized(rows, shape, self.align_corners), kept)
            rows = resized(rows, size, self.align_corners)
            if self.protocol.scores_at == "image":
                rows = mapped(rows, rule)
            maps[scale] = mapped(rows, _mean_of_views)
        return maps

    def _crops(self, image: Tensor, windows: Windows) -> list[Tensor]:
        """Return the windows of a normalised image, padded at the bottom and right to fit them."""
        height, width = windows.rows[-1] + windows.height, windows.columns[-1] + windows.width
        if (height, width) != _size(image):
            padded = self._padding(image).repeat(1, 1, height, width)
            padded[..., : image.shape[2], : image.shape[3]] = image
            image = padded
        return [
            image[..., y : y + windows.height, x : x + windows.width]
            for y in windows.rows
            for x in windows.columns
        ]

    def _padding(self, image: Tensor) -> Tensor:
        """Return a normalised pixel (1, N, 1, 1): the colour of the protocol, or 0 without RGB."""
        if getattr(self.normalize, "channels", None) is not None:
            return image.new_zeros(1, image.shape[1], 1, 1)
        color = torch.tensor(self.protocol.window_color, dtype=torch.uint8, device=image.device)
        return self.normalize(color.view(1, 3, 1, 1))

    def _window_mean(
        self, logits: Sequence[Tensor], windows: Windows, size: Size, rule: Rule
    ) -> Rows:
        """Return the mean of the windows of a scaled image, (V, K, *size).

        It contains scores, or logits if the protocol applies the rule to the image.
        """
        side = windows.height, windows.width
        parts = [resized(tensor_rows(views), side, self.align_corners) for views in logits]
        if self.protocol.scores_at == "window":
            parts = [mapped(mapped(part, rule), _mean_of_views) for part in parts]
        return mean_of_windows(windows, parts, size)

    def logits(self, crops: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield each crop's float32 logits (V, K, h, w) at head resolution.

        V is 2 for a crop and its mirror image (mirrored back), 1 without flip or after averaging.
        If the memory does not suffice, `batch` is halved for this and all later images.

        Raises:
            OutOfMemory: not even one crop fits.
        """
        sides = (False, True) if self.protocol.flip else (False,)
        waiting = [(crop, mirrored) for crop in crops for mirrored in sides]
        finished: list[Tensor] = []
        while waiting:
            views = waiting[: self.batch]
            try:
                logits = self._run_model(views)
            except Exception as error:  # each runtime has its own class for this
                if not is_out_of_memory(error):
                    raise
                logits = None
            if logits is None:  # outside of `except`: the error keeps tensors alive
                self._halve_batch(views)
                continue
            finished += logits
            del waiting[: len(views)], logits
            while len(finished) >= len(sides):
                pair = torch.stack(finished[: len(sides)])
                del finished[: len(sides)]
                # Interpolation is linear, so averaging before it halves its cost.
                yield _mean_of_views(pair) if self.protocol.flip_average == "logits" else pair

    def _run_model(self, views: Sequence[tuple[Tensor, bool]]) -> list[Tensor]:
        """Return the float32 logits (K, h, w) of each view, a crop and whether to mirror it."""
        batch = torch.cat([crop.flip(-1) if mirrored else crop for crop, mirrored in views])
        # Interpolation, exp and argmax need float32.
        logits = self.model(batch).float()
        swapped = list(range(logits.shape[1]))
        for left, right in self.flip_pairs:
            swapped[left], swapped[right] = right, left
        return [
            view_logits[swapped].flip(-1) if mirrored else view_logits
            for view_logits, (_, mirrored) in zip(logits, views, strict=True)
        ]

    def _halve_batch(self, views: Sequence[tuple[Tensor, bool]]) -> None:
        give_back()
        crop, count = views[0][0], len(views)
        size = f"{crop.shape[-1]}x{crop.shape[-2]}"
        if count == 1:
            raise OutOfMemory(
                f"Out of memory on {crop.device}: not even one image of {size} (width x height) "
                "fits.\nExpected: memory for at least one window or tile. Fix: a device with more "
                "memory, a lower precision (bf16), or smaller windows or tiles (inference.window, "
                "--tile). Smaller ones change the scores."
            )
        self.batch = count // 2
        warnings.warn(
            f"out of memory with {count} images of {size} at once: evaluation continues with "
            f"{self.batch}, with the same scores (inference.window_batch={self.batch})",
            stacklevel=2,
        )


def _mean_of_views(views: Tensor) -> Tensor:
    return views.mean(0, keepdim=True) if len(views) > 1 else views


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]
