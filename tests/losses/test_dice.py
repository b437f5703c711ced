import pytest
import torch

from hrseg.losses import Dice


def logits_of(probabilities):
    """Return logits (1, 2, 1, N) whose softmax gives class 0 these probabilities."""
    p = torch.tensor(probabilities)
    return torch.stack([p.log(), (1 - p).log()])[None, :, None, :].requires_grad_()


def test_the_value_equals_a_manual_calculation():
    loss = Dice()(logits_of([0.8, 0.4, 0.3]), torch.tensor([[[0, 0, 1]]]))
    first = 2 * (0.8 + 0.4) / (2 + 0.8 + 0.4 + 0.3)
    second = 2 * 0.7 / (1 + 0.2 + 0.6 + 0.7)
    assert loss.item() == pytest.approx(1 - (first + second) / 2)


def test_classes_without_true_pixels_are_excluded():
    loss = Dice()(logits_of([0.8, 0.4]), torch.tensor([[[0, 0]]]))
    assert loss.item() == pytest.approx(1 - 2 * 1.2 / (2 + 1.2))
