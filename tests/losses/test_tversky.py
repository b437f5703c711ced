import numpy as np
import pytest
import torch

from hrseg.losses import Dice, Tversky
from tests.losses.test_dice import logits_of


def test_the_value_equals_a_manual_calculation():
    loss = Tversky(alpha=0.3, beta=0.7)(logits_of([0.8, 0.4, 0.3]), torch.tensor([[[0, 0, 1]]]))
    # Soft TP, FP and FN of class 0: 0.8 + 0.4, 0.3, 0.2 + 0.6; of class 1: 0.7, 0.2 + 0.6, 0.3.
    first = 1.2 / (1.2 + 0.3 * 0.3 + 0.7 * 0.8)
    second = 0.7 / (0.7 + 0.3 * 0.8 + 0.7 * 0.3)
    assert loss.item() == pytest.approx(1 - (first + second) / 2)


def test_ignored_pixels_and_absent_classes_equal_a_formula_in_numpy():
    generator = np.random.default_rng(4)
    logits = generator.normal(size=(2, 4, 6, 7))
    mask = generator.choice([0, 1, 3, 255], (2, 6, 7))  # without class 2
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    indices = []
    for k in (0, 1, 3):
        p, g = probability[:, k][mask != 255], mask[mask != 255] == k
        positive, false, missed = p[g].sum(), p[~g].sum(), (1 - p[g]).sum()
        indices.append(positive / (positive + 0.2 * false + 1.1 * missed))
    loss = Tversky(alpha=0.2, beta=1.1)(torch.tensor(logits), torch.tensor(mask))
    assert loss.item() == pytest.approx(1 - np.mean(indices), rel=1e-5)


def test_equal_weights_of_one_half_are_dice():
    logits, mask = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    mask[0, 3:] = 255
    loss = Tversky(alpha=0.5, beta=0.5)(logits, mask)
    torch.testing.assert_close(loss, Dice()(logits, mask))
