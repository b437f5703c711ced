"""Metrics: the confusion matrix, boundary IoU, bootstrap intervals, and scale selection."""

from hrseg.metrics.confusion import ConfusionMatrix, count_pairs, mean_iou, summarize

__all__ = ["ConfusionMatrix", "count_pairs", "mean_iou", "summarize"]
