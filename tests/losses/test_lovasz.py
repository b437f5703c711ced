"""Lovasz-Softmax loss, compared with the definition of the Lovasz extension by sorting."""

import numpy as np
import pytest
import torch

from hrseg.losses import Lovasz
from hrseg.losses.lovasz import extension


def one_minus_iou(truth, wrong):
    """Return 1 - IoU of a prediction with errors at exactly the pixels of a set."""
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
def test_the_extension_equals_its_definition(seed):
    random = np.random.default_rng(seed)
    errors, truth = random.random(30), random.random(30) < 0.4
    value = extension(torch.tensor(errors), torch.tensor(truth).double())
    assert value.item() == pytest.approx(by_definition(errors, truth))


def test_the_loss_of_certain_predictions_is_one_minus_the_mean_iou():
    mask = torch.tensor([[[0, 0, 1, 1, 2, 2]]])
    pred = torch.tensor([[[0, 1, 1, 1, 2, 0]]])
    logits = 1000 * torch.nn.functional.one_hot(pred, 4).permute(0, 3, 1, 2).float()
    # IoU 1/3, 2/3 and 1/2; class 3 is absent.
    assert Lovasz()(logits, mask).item() == pytest.approx(1 - (1 / 3 + 2 / 3 + 1 / 2) / 3)


def test_float32_is_exact_for_a_million_pixels():
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(1_000_000, generator=generator)
    truth = (torch.rand(1_000_000, generator=generator) < 0.01).float()
    exact = extension(errors.double(), truth.double())
    assert extension(errors, truth).item() == pytest.approx(exact.item(), rel=1e-5)
