import pytest
import torch
import torch.nn.functional as F

from hrseg.losses import Boundary


def hard(mask, num_classes=2):
    return 1000 * F.one_hot(mask, num_classes).permute(0, 3, 1, 2).float()


def square(left):
    """A square of 4x4 in 16x16, `left` pixels from the left."""
    mask = torch.zeros(1, 16, 16, dtype=torch.long)
    mask[0, 6:10, left : left + 4] = 1
    return mask


def test_a_shift_within_the_tolerance_costs_nothing():
    assert Boundary(tolerance=2)(hard(square(6)), square(4)).item() == pytest.approx(0, abs=1e-5)


def test_the_value_by_hand():
    value = Boundary(tolerance=1)(hard(square(6)), square(4)).item()
    expected = [
        1 - f1_by_loops(ring_by_loops(square(6)[0] == id), ring_by_loops(square(4)[0] == id), 1)
        for id in (0, 1)
    ]
    # Columns 5, 6 and 7 of the square's ring lie within 1 of the other: 2 + 2 + 4 of 12 pixels.
    assert expected[1] == pytest.approx(1 - 8 / 12)
    assert value == pytest.approx(sum(expected) / 2, abs=1e-5)


def ring_by_loops(region):
    """Pixels of a region with a neighbour, of eight, outside it."""
    found = set()
    for y in range(16):
        for x in range(16):
            around = [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            inside = [region[v, u] for v, u in around if 0 <= v < 16 and 0 <= u < 16]
            if region[y, x] and not all(inside):
                found.add((y, x))
    return found


def f1_by_loops(pred, true, tolerance):
    def near(some, others):
        hits = [any(max(abs(y - v), abs(x - u)) <= tolerance for v, u in others) for y, x in some]
        return sum(hits) / len(some)

    precision, recall = near(pred, true), near(true, pred)
    return 2 * precision * recall / (precision + recall)


def test_without_contours_it_is_zero():
    assert Boundary()(torch.randn(1, 2, 16, 16), torch.zeros(1, 16, 16)).item() == 0
