"""Precision, recall, Dice and the threshold curve of a task with two classes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hrseg.metrics.confusion import number
from hrseg.utils.constants import IGNORE_INDEX

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
_BACKGROUND = ("background", "bg")


def foreground_id(class_names: Sequence[str]) -> int:
    """Return the foreground of two classes: class 1, unless class 1 is called background."""
    return 0 if class_names[-1].strip().lower() in _BACKGROUND else 1


class ThresholdCounts(Metric):
    """Counts of foreground probabilities between the thresholds, int64 (2, 20).

    Row 0 counts pixels of the background, row 1 pixels of the foreground. Column i counts
    probabilities that reach i of the thresholds 0.05, 0.10, ..., 0.95.

    Args:
        foreground: id of the foreground in the truth.

    Examples:
        >>> counts = ThresholdCounts(foreground=1)
        >>> counts.update(torch.tensor([[0.2, 0.9, 0.6]]), torch.tensor([[0, 1, 255]]))
        >>> counts.compute().nonzero().tolist()
        [[0, 4], [1, 18]]
    """

    full_state_update = False
    counts: Tensor
    edges: Tensor

    def __init__(self, foreground: int = 1) -> None:
        super().__init__()
        self.foreground = foreground
        zeros = torch.zeros(2, len(THRESHOLDS) + 1, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")
        self.register_buffer("edges", torch.tensor(THRESHOLDS), persistent=False)

    def update(self, probability: Tensor, target: Tensor) -> None:
        """Add the pixels of an image.

        Args:
            probability: of the foreground, float32 of any shape.
            target: class ids of the same shape; 255 is ignored.
        """
        scored = target != IGNORE_INDEX
        reached = torch.bucketize(probability[scored], self.edges, right=True)
        width = self.counts.shape[1]
        cells = (target[scored] == self.foreground).long() * width + reached
        self.counts += torch.bincount(cells, minlength=2 * width).view(2, width)

    def compute(self) -> Tensor:
        """Return the counts, summed over processes."""
        return self.counts.clone()


def threshold_curve(counts: Tensor) -> list[dict[str, float | None]]:
    """Return precision, recall, Dice and IoU of the foreground at each threshold.

    Args:
        counts: of `ThresholdCounts`.
    """
    # Pixels that reach each threshold: sums from the right.
    background, foreground = counts.cpu().double().flip(1).cumsum(1).flip(1)
    rows = []
    for index, threshold in enumerate(THRESHOLDS, 1):
        correct, wrong = foreground[index], background[index]
        rows.append({"threshold": threshold, **overlap_scores(correct, wrong, foreground[0])})
    return rows


def overlap_scores(correct: Tensor, wrong: Tensor, truth: Tensor) -> dict[str, float | None]:
    """Return precision, recall, Dice and IoU from pixel counts (scalars); undefined are None.

    Args:
        correct: foreground pixels predicted as foreground.
        wrong: background pixels predicted as foreground.
        truth: foreground pixels.
    """
    predicted = correct + wrong
    return {
        "precision": number(correct / predicted),
        "recall": number(correct / truth),
        "dice": number(2 * correct / (predicted + truth)),
        "iou": number(correct / (wrong + truth)),
    }


def binary_summary(
    matrix: Tensor, counts: Tensor, class_names: Sequence[str], threshold: float | None
) -> dict[str, Any]:
    """Return the scores of the foreground as plain data, in the layout of scores.json.

    Args:
        matrix: confusion matrix (2, 2) of the predicted masks; rows are the truth.
        counts: of `ThresholdCounts`.
        class_names: of both classes.
        threshold: of the predicted masks; None: 0.5.
    """
    foreground = foreground_id(class_names)
    pixels = matrix.cpu().double()
    correct, truth = pixels[foreground, foreground], pixels[foreground].sum()
    curve = threshold_curve(counts)
    scored = [row for row in curve if row["dice"] is not None]
    return {
        "foreground": class_names[foreground],
        "threshold": 0.5 if threshold is None else threshold,
        **overlap_scores(correct, pixels[1 - foreground, foreground], truth),
        "curve": curve,
        "best": max(scored, key=lambda row: row["dice"] or 0.0, default=None),
    }
