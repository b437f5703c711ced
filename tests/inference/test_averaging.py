"""Logits become scores, scores class ids."""

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


@pytest.mark.parametrize(
    ("flip", "flip_average", "suffices"),
    [(False, "scores", True), (True, "logits", True), (True, "scores", False)],
)
def test_logits_stand_for_scores_unless_scores_are_averaged(flip, flip_average, suffices):
    protocol = Protocol(average="softmax", flip=flip, flip_average=flip_average)
    rule = rule_of(protocol, [scores([1.0, 2.0])], ranks_suffice=True)
    assert (rule is ORDER_ONLY) == suffices
    assert rule_of(protocol, [scores([1.0, 2.0])]) is AVERAGES["softmax"]


@pytest.mark.parametrize("high", [79.0, 700.0])
def test_exponentials_beyond_float32_keep_their_shares(high):
    logits = scores([high, high - 1, 0.0])
    rule = rule_of(Protocol(average="exp_logits"), [logits])
    shares = in_float32(rule(logits)).flatten()
    # By hand: e^-1 of the largest, and what is nothing beside it.
    expected = torch.tensor([1.0, 0.36787944, 0.0])
    torch.testing.assert_close(shares / shares[0], expected, rtol=1e-5, atol=1e-30)
