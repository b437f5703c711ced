"""Conversion of scores to class ids."""

import torch

from hrseg.inference.averaging import class_ids


def scores(*pixels):
    """Return scores (1, K, 1, W) of pixels, each a list of K scores."""
    return torch.tensor(pixels).T.view(1, len(pixels[0]), 1, len(pixels)).contiguous()


def test_class_ids_are_the_argmax_and_ties_go_to_the_lowest_id():
    ids = class_ids(scores([0.1, 0.7, 0.2], [0.5, 0.0, 0.5], [-3.0, -2.0, -1.0]))
    assert ids.dtype == torch.uint8 and ids.tolist() == [[1, 0, 2]]
