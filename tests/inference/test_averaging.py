"""Averaging: logits become scores, scores class ids."""

import pytest
import torch

from hrseg.config.protocols import Protocol
from hrseg.inference.averaging import AVERAGES, class_ids, in_float32, rule_of

ORDER_ONLY = AVERAGES["logits"]


def scores(*pixels):
    """(1, K, 1, W) of a score per class for each pixel."""
    return torch.tensor(pixels).T.view(1, len(pixels[0]), 1, len(pixels)).contiguous()


def test_the_largest_score_wins_and_of_equals_the_first():
    ids = class_ids(scores([0.1, 0.7, 0.2], [0.5, 0.0, 0.5], [-3.0, -2.0, -1.0]))
    assert ids.dtype == torch.uint8 and ids.tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("high", [79.0, 700.0])
def test_exponentials_beyond_float32_keep_their_shares(high):
    logits = scores([high, high - 1, 0.0])
    rule = rule_of(Protocol(average="exp_logits"), [logits])
    shares = in_float32(rule(logits)).flatten()
    # By hand: e^-1 of the largest, and a vanishing share.
    expected = torch.tensor([1.0, 0.36787944, 0.0])
    torch.testing.assert_close(shares / shares[0], expected, rtol=1e-5, atol=1e-30)
