import pytest
import torch

from hrseg.models.fcn import FCNHead, concatenate


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("channels", [[18, 36, 72, 144], [18]])
def test_convolution_before_and_after_upsampling_gives_the_same_logits(channels, align_corners):
    head = FCNHead(channels, 7, align_corners).eval()
    maps = [torch.randn(2, c, 33 >> i, 47 >> i) for i, c in enumerate(channels)]
    with torch.no_grad():
        after = head.last_layer(concatenate(maps, align_corners))
        before = head(maps)["out"]
    assert (before - after).abs().max() <= 1e-5 * after.abs().max()
