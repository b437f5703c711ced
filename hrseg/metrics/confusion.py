"""Confusion matrix of integer counts, and the scores computed from it.

The benchmark's mIoU is a ratio of pixel counts over the whole data set, not a mean over images, so
that it does not depend on order, batch size or the number of processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hrseg.utils.constants import IGNORE_INDEX


class ConfusionMatrix(Metric):
    """Confusion matrix of pixels, int64 (K, K): rows are the truth; 255 in the truth is ignored.

    Examples:
        >>> import torch
        >>> matrix = ConfusionMatrix(num_classes=2)
        >>> matrix.update(torch.tensor([[0, 1, 1]]), torch.tensor([[0, 0, 255]]))
        >>> matrix.compute().tolist()
        [[1, 1], [0, 0]]
    """

    full_state_update = False
    matrix: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        zeros = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.add_state("matrix", default=zeros, dist_reduce_fx="sum")

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add the pixels of `pred` and `target`, integers of one shape, quickest as uint8."""
        for ids in (pred, target):
            if not isinstance(ids, Tensor):
                raise ValueError(
                    f"ConfusionMatrix got a {type(ids).__name__}.\n"
                    "Expected: tensors of class ids. Fix: torch.from_numpy(array)"
                )
        if pred.ndim == target.ndim + 1:
            raise ValueError(
                f"pred is {tuple(pred.shape)}, target is {tuple(target.shape)}.\n"
                "Expected: class ids of one shape. Fix: logits.argmax(1)"
            )
        if pred.shape != target.shape:
            raise ValueError(f"pred is {tuple(pred.shape)}, target is {tuple(target.shape)}")
        if pred.is_floating_point() or target.is_floating_point():
            raise ValueError(f"expected integer ids, got {pred.dtype} and {target.dtype}")
        pred, target = pred.flatten(), target.flatten()
        if not pred.dtype == target.dtype == torch.uint8:
            pred, target = self._scored(pred, target)
        counts = count_pairs(pred, target)
        counts[IGNORE_INDEX] = 0
        matrix = counts[: self.num_classes, : self.num_classes]
        if matrix.sum() < counts.sum():
            self._scored(pred, target)
        self.matrix += matrix

    def compute(self) -> Tensor:
        """Return the matrix, summed over processes."""
        return self.matrix.clone()

    def iou(self) -> Tensor:
        """Return intersection over union per class as `hrseg.metrics.confusion.iou`."""
        return iou(self.compute())

    def _scored(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scored = target != IGNORE_INDEX
        pred, target = pred[scored], target[scored]
        for ids, which in ((pred, "predicted"), (target, "true")):
            wrong = ids[(ids < 0) | (ids >= self.num_classes)]
            if wrong.numel():
                values = ", ".join(map(str, sorted(set(wrong.tolist()))[:5]))
                raise ValueError(
                    f"{which} id {values} is out of range: expected 0..{self.num_classes - 1} "
                    f"or {IGNORE_INDEX} (ignored, only in the truth)"
                )
        return pred, target


def iou(matrix: Tensor) -> Tensor:
    """Return intersection over union per class, float64 (K,); nan without a pixel in either."""
    hit, truth, pred = _marginals(matrix)
    return hit / (truth + pred - hit)


def mean_iou(matrix: Tensor, absent: str = "skipped") -> float:
    """Return the mean IoU over classes, 0..1; nan if there is nothing to score.

    Classes without a pixel are left out of the mean if `absent` is "skipped" (cityscapesScripts,
    mmsegmentation), and count as 0 if it is "zero" (the authors' code).
    """
    return _mean(iou(matrix), absent)


def summarize(
    matrix: Tensor, class_names: Sequence[str], absent: str = "skipped"
) -> dict[str, Any]:
    """Return every score as plain data, the layout of scores.json; undefined ones are None."""
    matrix = matrix.reshape(len(class_names), -1)  # torchmetrics squeezes one class
    hit, truth, _ = _marginals(matrix)
    total, class_iou, class_accuracy = truth.sum(), iou(matrix), hit / truth
    rows = zip(class_names, class_iou, class_accuracy, matrix.sum(1), strict=True)
    return {
        "miou": number(_mean(class_iou, absent)),
        "pixel_accuracy": number(hit.sum() / total),
        "mean_accuracy": number(_mean(class_accuracy, absent)),
        "frequency_weighted_iou": number((class_iou.nan_to_num() * truth).sum() / total),
        "absent_classes": absent,
        "classes": [
            {"name": n, "iou": number(i), "accuracy": number(a), "pixels": int(pixels)}
            for n, i, a, pixels in rows
        ],
        "confusion_matrix": matrix.tolist(),
    }


def count_pairs(pred: Tensor, target: Tensor) -> Tensor:
    """Return how often each pair of ids 0..255 occurs, int64 (256, 256), rows `target`.

    Invalid and ignored ids are found in these counts: four times as fast as masking the pixels.
    """
    pairs = (target.int() * 256).add_(pred.int())
    return torch.bincount(pairs, minlength=65536).view(256, 256)


def _marginals(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the right, true and predicted pixels of each class, float64 (K,)."""
    counts = matrix.cpu().double().reshape(*(matrix.shape or (1, 1)))
    return counts.diagonal(), counts.sum(1), counts.sum(0)


def _mean(values: Tensor, absent: str) -> float:
    if absent not in ("skipped", "zero"):
        raise ValueError(f"absent is {absent!r}, expected 'skipped' or 'zero'")
    if absent == "zero" and not values.isnan().all():
        values = values.nan_to_num()
    return float(values.nanmean())


def number(value: Any) -> float | None:
    """Return a scalar of torch or NumPy as plain data; nan becomes None."""
    return None if value != value else float(value)
