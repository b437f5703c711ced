"""Against the definition of the Lovasz extension: a set function's interpolation by sorting."""

import numpy as np
import pytest
import torch

from hrseg.losses import Lovasz
from hrseg.losses.lovasz import extension


def one_minus_iou(truth, wrong):
    """1 - IoU of a prediction that is wrong at exactly the pixels of a set."""
    pred = truth ^ wrong
    return 1 - (truth & pred).sum() / max(1, (truth | pred).sum())


def by_definition(errors, truth):
    total, before = 0.0, 0.0
    wrong = np.zeros(len(truth), bool)
    for pixel in np.argsort(-errors):
        wrong[pixel] = True
        value = one_minus_iou(truth, wrong)
        total += errors[pixel] * (value - before)
        before = value
    return total


@pytest.mark.parametrize("seed", range(5))
def test_the_extension_is_that_of_its_definition(seed):
    random = np.random.default_rng(seed)
    errors, truth = random.random(30), random.random(30) < 0.4
    found = extension(torch.tensor(errors), torch.tensor(truth).double())
    assert found.item() == pytest.approx(by_definition(errors, truth))


def test_at_hard_predictions_it_is_one_minus_the_mean_iou():
    mask = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    pred = torch.tensor([[[0, 1, 1, 1, 2, 0]]])
    logits = 1000 * torch.nn.functional.one_hot(pred, 4).permute(0, 3, 1, 2).float()
    # IoU 1/3, 2/3, 1/2; class 3 has no pixel.
    assert Lovasz()(logits, mask).item() == pytest.approx(1 - (1 / 3 + 2 / 3 + 1 / 2) / 3)


def test_a_million_pixels_are_as_exact_as_float64():
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1_000_000, generator=generator)
    truth = (torch.rand(1_000_000, generator=generator) < 0.01).float()
    exact = extension(errors.double(), truth.double())
    assert extension(errors, truth).item() == pytest.approx(exact.item(), rel=1e-5)
