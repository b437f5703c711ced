"""Confusion matrix of integer counts, and the scores computed from it.

The benchmark's mIoU is a ratio of pixel counts over the whole data set, not a mean over images, so
that it does not depend on order, batch size or the number of processes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.registry import find

# What a class without a pixel does to a mean: cityscapesScripts and mmsegmentation skip it, the
# authors' code counts it as 0.
_MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "skipped": lambda values: values.nanmean(),
    "zero": lambda values: values.nan_to_num().mean(),
}


class ConfusionMatrix(Metric):
    """Counts of (true class, predicted class) pixels: int64 (K, K), rows are the truth."""

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int, ignore_index: int = IGNORE_INDEX) -> None:
        """Count `num_classes` classes; pixels whose truth is `ignore_index` are left out.

        Raises:
            ValueError: the number of classes is not 1 to 256.
        """
        super().__init__()
        if not 1 <= num_classes <= 256:
            raise ValueError(f"num_classes is {num_classes}, expected 1 to 256")
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", default=zeros, dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the pixels of `pred` and `target`, integer tensors of one shape, quickest as uint8.

        Raises:
            ValueError: shapes differ, ids are no integers, or outside of the ignored pixels an id
                is no class.
        """
        if pred.shape != target.shape:
            raise ValueError(f"pred is {tuple(pred.shape)}, target is {tuple(target.shape)}")
        if pred.is_floating_point() or target.is_floating_point():
            raise ValueError(f"expected integer ids, got {pred.dtype} and {target.dtype}")
        pred, target = pred.flatten(), target.flatten()
        if not (_fit_byte(pred) and _fit_byte(target)):
            pred, target = self._scored(pred, target)
        counts = count_pairs(pred, target)
        if 0 <= self.ignore_index <= 255:
            counts[self.ignore_index] = 0
        matrix = counts[: self.num_classes, : self.num_classes]
        if matrix.sum() < counts.sum():
            self._scored(pred, target)
        self.matrix += matrix

    def compute(self) -> Tensor:
        """Return the matrix, summed over processes."""
        return self.matrix.clone()

    def _scored(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels that are not ignored, all of whose ids must be classes."""
        scored = target != self.ignore_index
        pred, target = pred[scored], target[scored]
        for ids, which in ((pred, "predicted"), (target, "true")):
            wrong = ids[(ids < 0) | (ids >= self.num_classes)]
            if wrong.numel():
                values = ", ".join(map(str, sorted(set(wrong.tolist()))[:5]))
                raise ValueError(
                    f"{which} id {values} is out of range: expected 0..{self.num_classes - 1} "
                    f"or {self.ignore_index} (ignored, in the truth alone)"
                )
        return pred, target


def iou(matrix: Tensor) -> Tensor:
    """Return intersection over union per class, float64 (K,); nan without a pixel in either."""
    true_positive, truth, pred = _marginals(matrix)
    return true_positive / (truth + pred - true_positive)


def accuracy(matrix: Tensor) -> Tensor:
    """Return the share of each class's true pixels that are found, (K,); nan without any."""
    true_positive, truth, _ = _marginals(matrix)
    return true_positive / truth


def dice(matrix: Tensor) -> Tensor:
    """Return 2 |A and B| / (|A| + |B|) per class, (K,); nan without a pixel in either."""
    true_positive, truth, pred = _marginals(matrix)
    return 2 * true_positive / (truth + pred)


def mean_iou(matrix: Tensor, absent: str = "skipped") -> float:
    """Return the mean IoU over classes, 0..1; nan if there is nothing to score.

    Args:
        matrix: (K, K) counts.
        absent: "skipped" leaves classes without a pixel out of the mean (cityscapesScripts,
            mmsegmentation); "zero" counts them as 0 (the authors' code).
    """
    return _mean(iou(matrix), absent)


def mean_accuracy(matrix: Tensor, absent: str = "skipped") -> float:
    """Return the mean class accuracy, 0..1; classes without true pixels as in `mean_iou`."""
    return _mean(accuracy(matrix), absent)


def pixel_accuracy(matrix: Tensor) -> float:
    """Return the share of pixels that are right, 0..1; nan if there are none."""
    true_positive, truth, _ = _marginals(matrix)
    return float(true_positive.sum() / truth.sum())


def frequency_weighted_iou(matrix: Tensor) -> float:
    """Return the IoU weighted by each class's share of the true pixels, 0..1; nan if none."""
    _, truth, _ = _marginals(matrix)
    return float((iou(matrix).nan_to_num() * truth).sum() / truth.sum())


def summarize(
    matrix: Tensor, class_names: Sequence[str], absent: str = "skipped"
) -> dict[str, Any]:
    """Return every score as plain data, the layout of scores.json; what is undefined is None."""
    matrix = torch.atleast_2d(matrix)
    rows = zip(class_names, iou(matrix), accuracy(matrix), matrix.sum(1), strict=True)
    return {
        "miou": _number(mean_iou(matrix, absent)),
        "pixel_accuracy": _number(pixel_accuracy(matrix)),
        "mean_accuracy": _number(mean_accuracy(matrix, absent)),
        "frequency_weighted_iou": _number(frequency_weighted_iou(matrix)),
        "absent_classes": absent,
        "classes": [
            {
                "name": name,
                "iou": _number(float(class_iou)),
                "accuracy": _number(float(class_accuracy)),
                "pixels": int(pixels),
            }
            for name, class_iou, class_accuracy, pixels in rows
        ],
        "confusion_matrix": matrix.tolist(),
    }


def count_pairs(pred: Tensor, target: Tensor) -> Tensor:
    """Return how often each pair of ids 0..255 occurs, int64 (256, 256), rows `target`.

    One pass over the pixels, whatever the classes and the ignored id are: what must not occur is
    looked for in the 65,536 counts. Four times as fast as masking two million pixels first.
    """
    pairs = (target.int() * 256).add_(pred.int())
    return torch.bincount(pairs, minlength=65536).view(256, 256)


def _fit_byte(ids: Tensor) -> bool:
    if ids.dtype == torch.uint8 or not ids.numel():
        return True
    return bool(ids.min() >= 0) and bool(ids.max() <= 255)


def _marginals(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.atleast_2d(matrix.cpu().double())  # torchmetrics squeezes one class
    return counts.diagonal(), counts.sum(1), counts.sum(0)


def _mean(values: Tensor, absent: str) -> float:
    mean = find(_MEANS, absent, "rule for absent classes")
    return float("nan") if values.isnan().all() else float(mean(values))


def _number(value: float) -> float | None:
    return None if value != value else value
