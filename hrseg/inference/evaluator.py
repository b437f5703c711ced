"""Evaluator: an image to class ids by a protocol, with windows, scales and flips.

The order of the steps is the authors' (HRNet-Semantic-Segmentation, lib/datasets/base_dataset.py).
Everything after the logits of the windows is made for a band of rows at a time.
"""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.inference.averaging import Rule, class_ids, in_float32, rule_of
from hrseg.inference.score_maps import Rows, cropped, held, joined, mapped, resized
from hrseg.inference.windows import Size, Windows, find_windows, prepare, size_at
from hrseg.utils.memory import OutOfMemory, give_back, is_out_of_memory

Model = Callable[[Tensor], Tensor]
Scales = tuple[float, ...]
BAND_BYTES = 2**22  # of one scale's scores: the size of a processor's cache


@dataclass
class Result:
    """Ids (H, W) of one image, uint8: `pred` fused, `preds` of each scale and of all.

    `scores` are the fused ones (1, K, H, W), float32, on request. Exponentials beyond float32 are
    relative to the pixel's largest.
    """

    pred: Tensor
    preds: dict[Scales, Tensor]
    scores: Tensor | None = None


@dataclass
class Evaluator:
    """Evaluate one image at a time by a protocol; NaN in the scores raises VerificationError.

    Examples:
        >>> from hrseg.models.normalize import Normalize
        >>> def model(images):  # three classes; the first has the highest logits
        ...     return torch.tensor([2.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(len(images), 3, 16, 16)
        >>> evaluate = Evaluator(model, Normalize(), Protocol(scales=(1.0,), flip=True))
        >>> result = evaluate(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
        >>> tuple(result.pred.shape), result.pred.unique().tolist()
        ((64, 64), [0])
    """

    model: Model  # normalised images (B, 3, h, w) -> logits (B, K, any size), K up to 256
    normalize: Callable[[Tensor], Tensor]  # uint8 images (1, 3, h, w) -> normalised ones
    protocol: Protocol
    flip_pairs: Sequence[Sequence[int]] = ()  # channels that trade places in a mirrored image
    align_corners: bool = False  # rule for interpolating logits; images never align corners
    batch: int = 4  # limit of windows and mirror images in one call of the model

    @torch.inference_mode()
    def __call__(
        self, image: Tensor, size: Sequence[int] | None = None, keep_scores: bool = False
    ) -> Result:
        """Evaluate an image, uint8 RGB (1, 3, H, W); `size` (height, width) is the result's."""
        parts: dict[Scales, list[Tensor]] = defaultdict(list)
        sums: list[Tensor] = []
        for band in _bands(self.scores(image, size, ranks_suffice=not keep_scores)):
            first, *others = band.values()
            fused = sum(others, first)
            totals: dict[Scales, Tensor] = {(scale,): scores for scale, scores in band.items()}
            totals[self.protocol.scales] = fused
            for scales, total in totals.items():
                parts[scales].append(class_ids(total))
            if keep_scores:
                sums.append(in_float32(fused))
        preds = {scales: torch.cat(ids) for scales, ids in parts.items()}
        kept = torch.cat(sums, 2) if keep_scores else None
        return Result(preds[self.protocol.scales], preds, kept)

    @torch.inference_mode()
    def subsets(self, image: Tensor, size: Sequence[int] | None = None) -> dict[Scales, Tensor]:
        """Return the ids (H, W) of each subset of the scales; arguments and errors as in a call."""
        parts: dict[Scales, list[Tensor]] = defaultdict(list)
        for band in _bands(self.scores(image, size)):
            for scales, total in _sums(list(band.items())):
                parts[scales].append(class_ids(total))
        return {scales: torch.cat(ids) for scales, ids in parts.items()}

    def scores(
        self, image: Tensor, size: Sequence[int] | None = None, ranks_suffice: bool = False
    ) -> dict[float, Rows]:
        """Return the scores (1, K, *size) of each scale; `image` and `size` as in a call.

        If exp would overflow, or classes vanish, they are in float64 and relative to the image's
        peak, a factor that all scales share. With `ranks_suffice` only their order is right.
        """
        size = (int(size[0]), int(size[1])) if size else _size(image)
        prepared, content = prepare(image, self.protocol)
        normalised = self.normalize(prepared)
        shape = _size(normalised)
        seen: dict[float, tuple[Size, Windows, list[Tensor]]] = {}
        for scale in self.protocol.scales:
            scaled_shape = size_at(shape, scale, self.protocol)
            windows = find_windows(scaled_shape, scale, self.protocol)
            # No antialiasing, as the authors; images never align corners.
            scaled = normalised
            if scaled_shape != shape:
                scaled = F.interpolate(normalised, scaled_shape, mode="bilinear")
            crops = self._crops(scaled, windows)
            seen[scale] = scaled_shape, windows, [v.contiguous() for v in self.logits(crops)]
        direct = [s == content == size and len(views) == 1 for s, _, views in seen.values()]
        everything = [logits for *_, views in seen.values() for logits in views]
        rule = rule_of(self.protocol, everything, ranks_suffice and direct == [True])
        maps = {}
        for scale, (scaled_shape, windows, views) in seen.items():
            rows = self._joined(views, windows, scaled_shape, rule)
            rows = cropped(resized(rows, shape, self.align_corners), content)
            rows = resized(rows, size, self.align_corners)
            if self.protocol.scores_at == "image":
                rows = mapped(rows, rule)
            maps[scale] = mapped(rows, _mean_of_views)
        return maps

    def _crops(self, image: Tensor, windows: Windows) -> list[Tensor]:
        """Cut a normalised image, padded at the bottom and right so that the last windows fit."""
        height, width = windows.rows[-1] + windows.height, windows.columns[-1] + windows.width
        if (height, width) != _size(image):
            color = torch.tensor(self.protocol.window_color, dtype=torch.uint8, device=image.device)
            padded = self.normalize(color.view(1, 3, 1, 1)).repeat(1, 1, height, width)
            padded[..., : image.shape[2], : image.shape[3]] = image
            image = padded
        return [
            image[..., y : y + windows.height, x : x + windows.width]
            for y in windows.rows
            for x in windows.columns
        ]

    def _joined(self, views: Sequence[Tensor], windows: Windows, size: Size, rule: Rule) -> Rows:
        """Return the scores (V, K, *size) of a scaled image, or logits for a later rule."""
        side = windows.height, windows.width
        parts = [resized(held(logits), side, self.align_corners) for logits in views]
        if self.protocol.scores_at == "window":
            parts = [mapped(mapped(part, rule), _mean_of_views) for part in parts]
        return joined(windows, parts, size)

    def logits(self, crops: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield each crop's float32 logits (V, K, h, w) at head resolution, mirroring undone.

        An image and its mirror image are two views until they are averaged. When memory is short,
        `batch` is halved for this and all later images; OutOfMemory if not even one crop fits.
        """
        sides = (False, True) if self.protocol.flip else (False,)
        views = [(crop, mirrored) for crop in crops for mirrored in sides]
        done: list[Tensor] = []
        while views:
            together = views[: self.batch]
            try:
                logits = self._through_model(together)
            except Exception as error:  # each runtime has its own class for this
                if not is_out_of_memory(error):
                    raise
                logits = None
            if logits is None:  # only now is the error gone, which kept tensors alive
                self._take_fewer(together)
                continue
            done += logits
            del views[: len(together)], logits
            while len(done) >= len(sides):
                pair = torch.stack(done[: len(sides)])
                del done[: len(sides)]
                # Averaged before the interpolation, which is linear, and so costs half.
                yield _mean_of_views(pair) if self.protocol.flip_average == "logits" else pair

    def _through_model(self, views: Sequence[tuple[Tensor, bool]]) -> list[Tensor]:
        batch = torch.cat([crop.flip(-1) if mirrored else crop for crop, mirrored in views])
        # Reduced precision ends here: interpolation, exp and argmax need float32.
        logits = self.model(batch).float()
        swapped = list(range(logits.shape[1]))
        for left, right in self.flip_pairs:
            swapped[left], swapped[right] = right, left
        return [
            each[swapped].flip(-1) if mirrored else each
            for each, (_, mirrored) in zip(logits, views, strict=True)
        ]

    def _take_fewer(self, views: Sequence[tuple[Tensor, bool]]) -> None:
        give_back()
        crop, count = views[0][0], len(views)
        size = f"{crop.shape[-1]}x{crop.shape[-2]}"
        if count == 1:
            raise OutOfMemory(
                f"out of memory: not even one image of {size} (width x height) fits into that of "
                f"{crop.device}.\nTake a device with more, a lower precision (bf16), or smaller "
                "windows or tiles (inference.window, --tile), which give other scores."
            )
        self.batch = count // 2
        warnings.warn(
            f"out of memory with {count} images of {size} at once: continuing with {self.batch}; "
            f"the scores are the same (inference.window_batch={self.batch})",
            stacklevel=2,
        )


def _bands(maps: Mapping[float, Rows]) -> Iterator[dict[float, Tensor]]:
    """Yield the scores of all scales, a band of rows at a time, from top to bottom."""
    first_map = next(iter(maps.values()))
    height, row = first_map.size[0], first_map.read(0, 1)
    # A GPU has its own cache and needs few, large steps.
    budget = BAND_BYTES if row.is_cpu else 32 * BAND_BYTES
    step = max(8, budget // (row.numel() * row.element_size()))
    for first in range(0, height, step):
        end = min(first + step, height)
        yield {scale: rows.read(first, end) for scale, rows in maps.items()}


def _mean_of_views(views: Tensor) -> Tensor:
    return views.mean(0, keepdim=True) if len(views) > 1 else views


def _sums(
    terms: Sequence[tuple[float, Tensor]], scales: Scales = (), total: Tensor | None = None
) -> Iterator[tuple[Scales, Tensor]]:
    """Yield the sum of each non-empty subset, each made of a smaller one by one addition."""
    for index, (scale, scores) in enumerate(terms):
        longer = (*scales, scale)
        summed = scores if total is None else total + scores
        yield longer, summed
        yield from _sums(terms[index + 1 :], longer, summed)


def _size(image: Tensor) -> Size:
    return image.shape[-2], image.shape[-1]
