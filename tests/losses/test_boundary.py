import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from hrseg.losses import Boundary


def hard(mask, num_classes=2):
    return 1000 * F.one_hot(mask, num_classes).permute(0, 3, 1, 2).float()


def square(left):
    """Return a mask with a square of 4x4 in 16x16, `left` pixels from the left."""
    mask = torch.zeros(1, 16, 16, dtype=torch.long)
    mask[0, 6:10, left : left + 4] = 1
    return mask


def test_a_shift_within_the_tolerance_gives_zero():
    assert Boundary(tolerance=2)(hard(square(6)), square(4)).item() == pytest.approx(0, abs=1e-5)


def test_the_value_equals_a_manual_calculation():
    value = Boundary(tolerance=1)(hard(square(6)), square(4)).item()
    pred, true = square(6)[0].numpy(), square(4)[0].numpy()
    expected = [1 - f1_by_scipy(pred == label, true == label) for label in (0, 1)]
    # Columns 5, 6 and 7 of the contour are within 1 pixel of the other: 2 + 2 + 4 of 12.
    assert expected[1] == pytest.approx(1 - 8 / 12)
    assert value == pytest.approx(sum(expected) / 2, abs=1e-5)


def f1_by_scipy(pred, true):
    """Return F1 of the inner contours, matched within 1 pixel."""
    square = np.ones((3, 3))
    contours = [x & ~ndimage.binary_erosion(x, square, border_value=1) for x in (pred, true)]
    precision, recall = (
        ndimage.binary_dilation(other, square)[contour].mean()
        for contour, other in (contours, reversed(contours))
    )
    return 2 * precision * recall / (precision + recall)


def test_the_loss_without_contours_is_zero():
    assert Boundary()(torch.randn(1, 2, 16, 16), torch.zeros(1, 16, 16)).item() == 0
