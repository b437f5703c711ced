import math

import pytest
import torch

from hrseg.models.fcn import FCNHead, concatenate


def features(channels=(4, 8), batch=2):
    return [torch.randn(batch, c, 16 >> i, 24 >> i) for i, c in enumerate(channels)]


def test_the_first_loss_is_that_of_equal_probabilities():
    torch.manual_seed(0)
    logits = FCNHead([16, 32], num_classes=11)(features((16, 32)))["out"]
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(2, 16, 24, dtype=torch.long))
    assert abs(loss.item() - math.log(11)) < 0.1


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels", [[18, 36, 72, 144], [18]])
def test_convolving_before_upsampling_gives_the_logits_of_convolving_after(channels, align_corners):
    head = FCNHead(channels, 7, align_corners).eval()
    maps = [torch.randn(2, c, 33 >> i, 47 >> i) for i, c in enumerate(channels)]
    with torch.no_grad():
        after = head.last_layer(concatenate(maps, align_corners))
        before = head(maps)["out"]
    assert (before - after).abs().max() <= 1e-5 * after.abs().max()
