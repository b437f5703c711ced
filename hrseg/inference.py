"""From an image to class ids: geometry, scales, windows, mirror images, and how they are joined.

Takes a callable from normalised images to logits and knows neither data sets nor models. What is
done is said by a `Protocol`; the order of the steps is the authors' (HRNet-Semantic-Segmentation,
lib/datasets/base_dataset.py).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.errors import ProofError
from hrseg.geometry import Size, Windows, find_windows, prepare, scaled_size
from hrseg.protocols import Protocol

Model = Callable[[Tensor], Tensor]
Rule = Callable[[Tensor], Tensor]
Scales = tuple[float, ...]
T = TypeVar("T")
BAND = 64  # rows that are looked at together

AVERAGES: dict[str, Rule] = {
    "softmax": lambda logits: logits.softmax(1),
    "exp_logits": torch.exp,
    # A copy, since the scores of the other scales are added in place.
    "logits": torch.clone,
}


@dataclass
class Result:
    """What was seen in one image.

    Attributes:
        pred: fused ids (H, W), uint8.
        preds: ids by the scales that they come from: each alone, and all.
        scores: fused scores (1, K, H, W), float32, if they were asked for.
    """

    pred: Tensor
    preds: dict[Scales, Tensor]
    scores: Tensor | None = None


@dataclass(frozen=True)
class Evaluator:
    """Evaluates one image at a time by a protocol.

    Attributes:
        model: normalised images (B, 3, h, w) -> logits (B, K, any size), K up to 256.
        normalize: uint8 images (1, 3, h, w) -> normalised ones.
        protocol: what is done.
        flip_pairs: channels that trade places in a mirrored image.
        align_corners: the model's rule for interpolating logits; images never align corners.
        batch: windows and mirror images that go through the model together, at most.
    """

    model: Model
    normalize: Callable[[Tensor], Tensor]
    protocol: Protocol
    flip_pairs: Sequence[Sequence[int]] = ()
    align_corners: bool = False
    batch: int = 4

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, size: Sequence[int] | None = None, keep_scores: bool = False
    ) -> Result:
        """Evaluate an image, holding the scores of one scale and their sum at a time.

        Args:
            image: uint8 RGB, (1, 3, H, W).
            size: (height, width) of the result; the image's own by default.
            keep_scores: return the fused scores as well.

        Raises:
            ValueError: `image` is not one image.
            ProofError: the scores are not finite.
        """
        return self._in_range(lambda rule: self._fuse(image, size, keep_scores, rule))

    @torch.inference_mode()
    def subsets(self, image: Tensor, size: Sequence[int] | None = None) -> dict[Scales, Tensor]:
        """Return the ids (H, W) that each subset of the scales gives; holds all their scores.

        Arguments and errors as in a call.
        """
        return self._in_range(lambda rule: _subset_ids(dict(self.scores(image, size, rule))))

    def _in_range(self, evaluate: Callable[[Rule | None], T]) -> T:
        """Evaluate by the protocol's rule; once more, relative to the peak, where exp overflows."""
        try:
            return evaluate(None)
        except ProofError:
            if self.protocol.average != "exp_logits":
                raise
        # exp(89) is infinite in float32, and two infinities have no order. A factor that is common
        # to all scores changes nothing.
        peaks: list[float] = []
        evaluate(lambda logits: _noting_peak(logits, peaks))
        return evaluate(lambda logits: (logits.double() - max(peaks)).exp())

    def _fuse(
        self, image: Tensor, size: Sequence[int] | None, keep_scores: bool, rule: Rule | None
    ) -> Result:
        fused: Tensor | None = None
        preds: dict[Scales, Tensor] = {}
        for scale, scores in self.scores(image, size, rule, ranks_suffice=not keep_scores):
            preds[(scale,)] = class_ids(scores)
            fused = scores if fused is None else fused.add_(scores)
            del scores  # else it would take its memory through the next scale's forward pass
        assert fused is not None, "a protocol has at least one scale"
        pred = preds.get(self.protocol.scales)
        pred = preds[self.protocol.scales] = class_ids(fused) if pred is None else pred
        return Result(pred, preds, fused.float() if keep_scores else None)

    def scores(
        self,
        image: Tensor,
        size: Sequence[int] | None = None,
        rule: Rule | None = None,
        ranks_suffice: bool = False,
    ) -> Iterator[tuple[float, Tensor]]:
        """Yield each scale with its scores (1, K, *size); arguments as in a call.

        Args:
            image: uint8 RGB, (1, 3, H, W).
            size: (height, width) of the scores; the image's own by default.
            rule: makes scores of logits, in place of the protocol's.
            ranks_suffice: logits may stand for scores where that leaves their order as it is.
        """
        if image.ndim != 4 or len(image) != 1:
            raise ValueError(f"image is {tuple(image.shape)}, expected (1, 3, H, W)")
        size = (int(size[0]), int(size[1])) if size else _size(image)
        prepared, content = prepare(image, self.protocol)
        normalised = self.normalize(prepared)
        shape = _size(normalised)
        for scale in self.protocol.scales:
            scaled_shape = scaled_size(shape, scale, self.protocol)
            scaled = _interpolate(normalised, scaled_shape, align_corners=False)
            windows = find_windows(scaled_shape, scale, self.protocol)
            direct = len(self.protocol.scales) == 1 and scaled_shape == content == size
            skip = ranks_suffice and direct and windows is None
            to_scores = rule or self._rule(skip)
            views = self._views(scaled, windows, to_scores)
            views = _interpolate(views, shape, self.align_corners)[..., : content[0], : content[1]]
            views = _interpolate(views, size, self.align_corners)
            if self.protocol.scores_at == "image":
                views = to_scores(views)
            yield scale, views.mean(0, keepdim=True) if len(views) > 1 else views

    def _rule(self, skip: bool) -> Rule:
        """Return what turns logits into scores; nothing, where only their order is asked for."""
        # Every rule rises with the logit, so the order is the same unless scores are averaged.
        if skip and not (self.protocol.flip and self.protocol.flip_average == "scores"):
            return lambda logits: logits
        return AVERAGES[self.protocol.average]

    def _views(self, image: Tensor, windows: Windows | None, rule: Rule) -> Tensor:
        """Return the scores of a scaled image, or logits if they become scores later.

        Shape (V, K, h, w): an image and its mirror image are two views until they are averaged.
        """
        height, width = _size(image)
        if windows is None:
            return self._to_scores(next(self.logits([image])), (height, width), rule)
        side = (windows.height, windows.width)
        image = self._filled(image, windows)
        slices = [
            (..., slice(y, y + side[0]), slice(x, x + side[1]))
            for y in windows.rows
            for x in windows.columns
        ]
        total: Tensor | None = None
        for place, logits in zip(slices, self.logits([image[s] for s in slices]), strict=True):
            views = self._to_scores(logits, side, rule)
            if total is None:
                total = views.new_zeros(*views.shape[:2], *_size(image))
            total[place] += views
        assert total is not None
        # How often a pixel was seen is a product of its row and its column.
        total /= _coverage(windows.rows, side[0], total.shape[2]).to(total).view(-1, 1)
        total /= _coverage(windows.columns, side[1], total.shape[3]).to(total)
        return total[..., :height, :width]

    def logits(self, crops: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield each crop's float32 logits (V, K, h, w) at head resolution, mirroring undone."""
        count = max(1, self.batch // 2) if self.protocol.flip else self.batch
        for start in range(0, len(crops), count):
            batch = torch.cat(list(crops[start : start + count]))
            batch = torch.cat([batch, batch.flip(-1)]) if self.protocol.flip else batch
            # Reduced precision ends here: interpolation, exp and argmax need float32.
            logits = self.model(batch).float()
            if not self.protocol.flip:
                yield from (one[None] for one in logits)
                continue
            straight, mirrored = logits.chunk(2)
            mirrored = mirrored[:, _swapped(logits.shape[1], self.flip_pairs)].flip(-1)
            yield from torch.stack([straight, mirrored], 1)

    def _to_scores(self, views: Tensor, size: Size, rule: Rule) -> Tensor:
        """Bring logits (V, K, h, w) to `size`, average the views, apply the rule, as it is due."""
        if self.protocol.flip_average == "logits" and len(views) > 1:
            # Averaged before the interpolation, which is linear and symmetric, and so costs half.
            views = views.mean(0, keepdim=True)
        views = _interpolate(views, size, self.align_corners)
        if self.protocol.scores_at == "window":
            views = rule(views)
            return views.mean(0, keepdim=True) if len(views) > 1 else views
        return views

    def _filled(self, image: Tensor, windows: Windows) -> Tensor:
        """Pad a normalised image at the bottom and right so that the last windows fit."""
        height, width = windows.rows[-1] + windows.height, windows.columns[-1] + windows.width
        if (height, width) == _size(image):
            return image
        color = torch.tensor(self.protocol.window_color, dtype=torch.uint8, device=image.device)
        padded = self.normalize(color.view(1, 3, 1, 1)).repeat(1, 1, height, width)
        padded[..., : image.shape[2], : image.shape[3]] = image
        return padded


def class_ids(scores: Tensor) -> Tensor:
    """Return the channel of the largest score (1, K, H, W), (H, W) uint8.

    Raises:
        ProofError: a score is not finite.
    """
    # max(1) keeps whole planes in step: on a CPU a quarter of the time of argmax(1).
    best = scores.max(1)
    if not best.values.isfinite().all():
        raise ProofError(
            "the model's scores are not finite: its weights are damaged, or float16 overflowed "
            "(try trainer.precision=32)."
        )
    return best.indices[0].to(torch.uint8)


def _noting_peak(logits: Tensor, peaks: list[float]) -> Tensor:
    peaks.append(float(logits.max()))
    return logits.clone()


def _subset_ids(scores: Mapping[float, Tensor]) -> dict[Scales, Tensor]:
    """Return the ids of each subset's sum of scores, in bands that bound the memory."""
    scales, parts = list(scores), defaultdict(list)
    height = next(iter(scores.values())).shape[-2]
    for start in range(0, height, BAND):
        bands = [score[..., start : start + BAND, :] for score in scores.values()]
        for chosen, total in _sums(bands):
            parts[tuple(scales[index] for index in chosen)].append(class_ids(total))
    return {chosen: torch.cat(ids) for chosen, ids in parts.items()}


def _sums(
    terms: Sequence[Tensor], chosen: tuple[int, ...] = (), total: Tensor | None = None
) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Yield the sum of each non-empty subset, each made of a smaller one by one addition."""
    for index in range(chosen[-1] + 1 if chosen else 0, len(terms)):
        longer = (*chosen, index)
        summed = terms[index] if total is None else total + terms[index]
        yield longer, summed
        yield from _sums(terms, longer, summed)


def _swapped(num_classes: int, flip_pairs: Sequence[Sequence[int]]) -> list[int]:
    order = list(range(num_classes))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return order


def _coverage(starts: Sequence[int], side: int, length: int) -> Tensor:
    """Return how many windows see each row (or column)."""
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + side] += 1
    return seen


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]


def _interpolate(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    if _size(x) == tuple(size):
        return x
    # No antialiasing, as the authors. In planes, the layout that windows are added up in.
    return F.interpolate(
        x.contiguous(), size=tuple(size), mode="bilinear", align_corners=align_corners
    )
