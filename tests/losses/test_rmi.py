"""RMI loss, compared with NumPy: covariance of explicit 3x3 squares, determinant by slogdet."""

import numpy as np
import pytest
import torch

from hrseg.errors import ConfigError
from hrseg.losses import RMI
from hrseg.losses.rmi import REGULARIZER


def columns(plane):
    """Return the 3x3 squares of (H, W) as centred columns (9, squares)."""
    height, width = plane.shape
    squares = [
        plane[y : y + 3, x : x + 3].ravel() for y in range(height - 2) for x in range(width - 2)
    ]
    stacked = np.array(squares).T
    return stacked - stacked.mean(1, keepdims=True)


def by_definition(probability, truth):
    values = []
    for p, t in zip(probability.reshape(-1, *probability.shape[2:]),
                    truth.reshape(-1, *truth.shape[2:]), strict=True):  # fmt: skip
        p, t = columns(p), columns(t)
        ridge = REGULARIZER * np.eye(9)
        left = t @ t.T - t @ p.T @ np.linalg.inv(p @ p.T + ridge) @ p @ t.T
        values.append(np.linalg.slogdet(left + ridge)[1] / 2 / 9)
    return np.mean(values)


@pytest.mark.parametrize("stride", [1, 3])
def test_the_value_equals_its_definition(stride):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 24, 30, generator=generator)
    mask = torch.randint(0, 3, (2, 8, 10), generator=generator).repeat_interleave(3, 1)
    mask = mask.repeat_interleave(3, 2)
    p, t = logits.softmax(1).numpy(), np.eye(3)[mask.numpy()].transpose(0, 3, 1, 2)
    shape = (2, 3, 24 // stride, stride, 30 // stride, stride)
    p, t = (x.reshape(shape).mean((3, 5)) for x in (p, t))
    loss = RMI(stride=stride)(logits, mask)
    assert loss.item() == pytest.approx(by_definition(p, t), rel=1e-4)


def test_too_small_crops_are_refused():
    with pytest.raises(ConfigError, match=r"crop \(8, 32\) is too small.*\nExpected: at least 9"):
        RMI()(torch.randn(1, 3, 8, 32), torch.zeros(1, 8, 32))
