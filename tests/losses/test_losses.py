import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hrseg.errors import ConfigError
from hrseg.losses import LOSSES, OHEM, CrossEntropy
from tests.golden_weights import CITYSCAPES_WEIGHTS, GOLDEN
from tests.losses.test_dice import logits_of

WEIGHTED = ("cross_entropy", "ohem", "focal")
TRAIN = np.load(GOLDEN / "train.npz")
GOLDEN_LOSSES = {
    "ce": CrossEntropy(),
    "ce_weighted": CrossEntropy(CITYSCAPES_WEIGHTS),
    "ohem_thres0.7_keep100": OHEM(threshold=0.7, min_kept=100),
    "ohem_thres0.7_keep5000": OHEM(threshold=0.7, min_kept=5000),
    "ohem_weighted_thres0.9_keep100": OHEM(CITYSCAPES_WEIGHTS, threshold=0.9, min_kept=100),
}


@pytest.mark.parametrize("name", GOLDEN_LOSSES)
def test_values_equal_those_of_the_authors_code(name):
    mask = torch.tensor(TRAIN["loss/labels"])
    logits = torch.tensor(TRAIN["loss/logits"])
    logits = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=False)
    value = GOLDEN_LOSSES[name](logits, mask).item()
    assert value == pytest.approx(TRAIN[f"loss/value/{name}"].item(), rel=1e-5)


@pytest.mark.parametrize(
    ("threshold", "min_kept", "kept"), [(0.7, 1, [0.2, 0.5]), (0.1, 3, [0.2, 0.5, 0.8])]
)
def test_ohem_keeps_pixels_below_the_threshold_and_at_least_min_kept(threshold, min_kept, kept):
    logits, mask = logits_of([0.95, 0.5, 0.8, 0.2]), torch.zeros(1, 1, 4, dtype=torch.uint8)
    loss = OHEM(threshold=threshold, min_kept=min_kept)(logits, mask).item()
    assert loss == pytest.approx(-sum(map(math.log, kept)) / len(kept))


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 1.0, 3.0, 1.5)])
def test_ohem_equals_a_full_sort(weights):
    generator = torch.Generator().manual_seed(1)
    for threshold, min_kept in [(0.3, 10), (0.3, 700), (0.9, 1), (0.05, 5000)]:
        logits = 2 * torch.randn(2, 5, 20, 30, generator=generator)
        mask = torch.randint(0, 5, (2, 20, 30), generator=generator)
        mask[torch.rand(mask.shape, generator=generator) < 0.3] = 255
        valid = mask != 255
        weight = None if weights is None else torch.tensor(weights)
        losses = F.cross_entropy(logits, mask, weight, ignore_index=255, reduction="none")[valid]
        true_class = mask.masked_fill(~valid, 0).unsqueeze(1)
        probability = logits.softmax(1).gather(1, true_class).squeeze(1)[valid]
        limit = probability.sort().values[min(min_kept, len(probability) - 1)].clamp(min=threshold)
        expected = losses[probability < limit].mean()
        loss = OHEM(weights, threshold=threshold, min_kept=min_kept)(logits, mask)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "label"),
    [
        *((name, {}, 255) for name in LOSSES),
        *((n, {"class_weights": [1.0, 2.0, 0.0]}, label) for n in WEIGHTED for label in (2, 255)),
    ],
)
def test_masks_without_scored_pixels_give_a_loss_and_gradients_of_zero(name, arguments, label):
    logits = torch.randn(2, 3, 9, 10, requires_grad=True)
    loss = LOSSES[name](**arguments)(logits, torch.full((2, 9, 10), label, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_pixels_have_no_effect(name):
    mask = torch.randint(0, 3, (1, 12, 12))
    mask[:, 6:] = 255
    logits = torch.randn(1, 3, 12, 12, requires_grad=True)
    changed = logits.detach().clone()
    changed[:, :, 6:] = torch.randn(1, 3, 6, 12)
    loss = LOSSES[name]()
    value = loss(logits, mask)
    value.backward()
    assert value.item() == loss(changed, mask).item()
    assert not logits.grad[:, :, 6:].any()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_logits_of_any_scale_and_precision_give_the_loss_of_float64(
    name, dtype, scale, monkeypatch
):
    generator = torch.Generator().manual_seed(3)
    logits = (scale * torch.randn(2, 3, 24, 24, generator=generator)).to(dtype).requires_grad_()
    mask = torch.randint(0, 3, (2, 24, 24), generator=generator)
    mask[0, :5] = 255
    # With the default min_kept, OHEM's threshold would be 1 after rounding in float32 only.
    loss = LOSSES[name](**{"min_kept": 1} if name == "ohem" else {})
    value = loss(logits, mask)
    value.backward()
    assert logits.grad.isfinite().all()
    double = logits.detach().double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    expected = loss(double, mask)
    assert expected.dtype == torch.float64
    assert value.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_a_nan_logit_gives_a_nan_loss(name):
    logits = torch.randn(1, 3, 9, 9)
    logits[0, 1, 2, 3] = torch.nan
    mask = torch.randint(0, 3, (1, 9, 9))
    assert LOSSES[name]()(logits, mask).isnan()


@pytest.mark.parametrize(
    ("name", "arguments"), [*((name, {}) for name in LOSSES), ("focal", {"gamma": 0.5})]
)
def test_gradients_equal_finite_differences(name, arguments, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(1, 3, 9, 9, dtype=torch.float64, generator=generator).requires_grad_()
    mask = torch.randint(0, 3, (1, 9, 9), generator=generator)
    mask[:, :2] = 255
    loss = LOSSES[name](**arguments)
    assert torch.autograd.gradcheck(lambda x: loss(x, mask), (logits,), fast_mode=True)


@pytest.mark.parametrize("name", WEIGHTED)
def test_invalid_class_weights_are_refused(name):
    with pytest.raises(ConfigError, match="2 class weights for a model of 3 classes"):
        LOSSES[name]([1.0, 2.0])(torch.randn(1, 3, 4, 4), torch.zeros(1, 4, 4))
    with pytest.raises(ConfigError, match=r"class_weights is \[1.0, -2.0\].\nExpected: one number"):
        LOSSES[name]([1.0, -2.0])


@pytest.mark.parametrize("name", WEIGHTED)
def test_class_weights_work_after_a_conversion_to_bf16(name):
    logits, mask = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    loss = LOSSES[name](class_weights=[0.5, 1.0, 2.0])
    expected = loss(logits, mask)
    torch.testing.assert_close(loss.bfloat16()(logits, mask), expected)
