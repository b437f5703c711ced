"""Metrics: confusion matrix, boundary IoU, bootstrap, scale selection, threshold, calibration."""

from hrseg.metrics.confusion import ConfusionMatrix, count_pairs, mean_iou, summarize

__all__ = ["ConfusionMatrix", "count_pairs", "mean_iou", "summarize"]
