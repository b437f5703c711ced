"""Averaging: logits become scores, scores class ids."""

import torch

from hrseg.inference.averaging import class_ids


def scores(*pixels):
    """(1, K, 1, W) of a score per class for each pixel."""
    return torch.tensor(pixels).T.view(1, len(pixels[0]), 1, len(pixels)).contiguous()


def test_the_largest_score_wins_and_of_equals_the_first():
    ids = class_ids(scores([0.1, 0.7, 0.2], [0.5, 0.0, 0.5], [-3.0, -2.0, -1.0]))
    assert ids.dtype == torch.uint8 and ids.tolist() == [[1, 0, 2]]
