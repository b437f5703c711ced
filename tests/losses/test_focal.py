import math

import numpy as np
import pytest
import torch

from hrseg.losses import CrossEntropy, Focal
from tests.losses.test_dice import logits_of


def test_the_value_equals_a_manual_calculation():
    loss = Focal()(logits_of([0.8, 0.4, 0.3]), torch.tensor([[[0, 0, 1]]]))
    pixels = [0.04 * -math.log(0.8), 0.36 * -math.log(0.4), 0.09 * -math.log(0.7)]
    assert loss.item() == pytest.approx(sum(pixels) / 3)


def test_class_weights_and_ignored_pixels_equal_a_formula_in_numpy():
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(2, 4, 6, 7))
    mask = generator.choice([0, 1, 2, 3, 255], (2, 6, 7))
    weights = np.array([0.5, 3.0, 0.0, 1.0])
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    valid = mask != 255
    p = np.moveaxis(probability, 1, -1)[valid, mask[valid]]
    pixel = weights[mask[valid]]
    expected = (-pixel * (1 - p) ** 1.5 * np.log(p)).sum() / pixel.sum()
    loss = Focal(weights, gamma=1.5)(torch.tensor(logits), torch.tensor(mask))
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1e-3)])
def test_gamma_0_is_cross_entropy(weights):
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    mask[0, 2:] = 255
    loss = Focal(weights, gamma=0.0)(logits, mask)
    torch.testing.assert_close(loss, CrossEntropy(weights)(logits, mask))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_perfect_pixel_has_a_loss_and_a_gradient_of_zero(gamma):
    logits = torch.tensor([[[[200.0]], [[-200.0]]]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.zeros(1, 1, 1, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()
