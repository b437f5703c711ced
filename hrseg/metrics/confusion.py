"""Confusion matrix of pixel counts, and the scores computed from it: IoU, mIoU, accuracy.

mIoU is a ratio of pixel counts over the whole data set, not a mean over images. Thus it does not
depend on the order, the batch size or the number of processes.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hrseg.utils.constants import IGNORE_INDEX

_CLASS_SCORES = ("iou", "accuracy", "precision", "dice")


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
        """Add the pixels of a batch or an image.

        Args:
            pred: class ids of any shape and integer type; uint8 is fastest.
            target: class ids of the same shape; 255 is ignored.

        Raises:
            ValueError: other types or shapes, or an invalid class id.
        """
        for ids in (pred, target):
            if not isinstance(ids, Tensor):
                raise ValueError(
                    f"ConfusionMatrix got a {type(ids).__name__}.\n"
                    "Expected: tensors of class ids. Fix: torch.from_numpy(array)"
                )
        if pred.shape != target.shape:
            fix = " Fix: logits.argmax(1)" if pred.ndim == target.ndim + 1 else ""
            raise ValueError(
                f"pred is {tuple(pred.shape)}, but target is {tuple(target.shape)}.\n"
                f"Expected: class ids of one shape.{fix}"
            )
        if pred.is_floating_point() or target.is_floating_point():
            raise ValueError(
                f"pred is {pred.dtype}, and target is {target.dtype}.\n"
                "Expected: integer class ids. Fix: logits.argmax(1)"
            )
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
        """Return the IoU per class; see `hrseg.metrics.confusion.iou`."""
        return iou(self.compute())

    def _scored(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        scored = target != IGNORE_INDEX
        pred, target = pred[scored], target[scored]
        for ids, name in ((pred, "pred"), (target, "target")):
            invalid = ids[(ids < 0) | (ids >= self.num_classes)]
            if invalid.numel():
                values = ", ".join(map(str, sorted(set(invalid.tolist()))[:5]))
                raise ValueError(
                    f"{name} contains invalid class ids: {values}.\nExpected: "
                    f"0..{self.num_classes - 1}, or {IGNORE_INDEX} for ignored pixels of target."
                )
        return pred, target


def iou(matrix: Tensor) -> Tensor:
    """Return the IoU per class, float64 (K,); NaN for classes in neither truth nor prediction."""
    correct, truth, pred = _marginals(matrix)
    return correct / (truth + pred - correct)


def mean_iou(matrix: Tensor, absent: str = "skipped") -> float:
    """Return the mean IoU over classes, 0..1; NaN without scored pixels.

    Args:
        matrix: counts (K, K); rows are the truth.
        absent: "skipped" excludes classes without pixels from the mean (cityscapesScripts,
            mmsegmentation); "zero" counts them as 0 (the authors' code).

    Raises:
        ValueError: another value of `absent`.
    """
    return _mean(iou(matrix), absent)


def summarize(
    matrix: Tensor, class_names: Sequence[str], absent: str = "skipped"
) -> dict[str, Any]:
    """Return all scores as plain data in the layout of scores.json; undefined scores are None.

    The recall of a class is its `accuracy`.
    """
    matrix = matrix.reshape(len(class_names), -1)  # torchmetrics squeezes one class
    correct, truth, pred = _marginals(matrix)
    total, class_iou, class_accuracy = truth.sum(), iou(matrix), correct / truth
    columns = (class_iou, class_accuracy, correct / pred, 2 * correct / (truth + pred))
    return {
        "miou": number(_mean(class_iou, absent)),
        "pixel_accuracy": number(correct.sum() / total),
        "mean_accuracy": number(_mean(class_accuracy, absent)),
        "frequency_weighted_iou": number((class_iou.nan_to_num() * truth).sum() / total),
        "absent_classes": absent,
        "classes": [
            {
                "name": name,
                **dict(zip(_CLASS_SCORES, map(number, row), strict=True)),
                "pixels": int(pixels),
            }
            for name, pixels, *row in zip(class_names, matrix.sum(1), *columns, strict=True)
        ],
        "confusion_matrix": matrix.tolist(),
    }


def count_pairs(pred: Tensor, target: Tensor) -> Tensor:
    """Return the counts of all pairs of ids 0..255, int64 (256, 256); rows are `target`.

    Looking for invalid and ignored ids in these counts is four times as fast as masking pixels.
    """
    pairs = (target.int() * 256).add_(pred.int())
    return torch.bincount(pairs, minlength=65536).view(256, 256)


def _marginals(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the correct, true and predicted pixels of each class, float64 (K,)."""
    counts = matrix.cpu().double().reshape(*(matrix.shape or (1, 1)))
    return counts.diagonal(), counts.sum(1), counts.sum(0)


def _mean(values: Tensor, absent: str) -> float:
    if absent not in ("skipped", "zero"):
        raise ValueError(f"absent is {absent!r}.\nExpected: 'skipped' or 'zero'.")
    if absent == "zero" and not values.isnan().all():
        values = values.nan_to_num()
    return float(values.nanmean())


def number(value: Any) -> float | None:
    """Return a torch or NumPy scalar as plain data; NaN becomes None."""
    return None if value != value else float(value)
