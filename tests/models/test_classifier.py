"""ImageNet classifier, compared with timm (scripts/maintenance/imagenet_golden.py)."""

import numpy as np
import pytest
import torch

from hrseg.errors import ConfigError
from hrseg.models.classifier import ImageNetClassifier
from hrseg.models.hrnet import HRNet
from tests.golden_weights import GOLDEN, draw, image, relative_error

LARGE = ("hrnet_w44", "hrnet_w64", "hrnet_w48_ssld")
GOLDEN_LOGITS = np.load(GOLDEN / "imagenet_logits.npz")


def variant_of(name):
    return {"hrnet_w18_small": "hrnet_w18_small_v1"}.get(name, name.removesuffix("_ssld"))


def classifier(name, upsample="nearest"):
    """Return the classifier for a timm model name, with random weights drawn per timm name."""
    backbone = HRNet(variant_of(name), upsample=upsample)
    model = ImageNetClassifier(backbone, conv_bias=not name.endswith("_ssld")).eval()
    names = {key: key.removeprefix("backbone.") for key in model.state_dict()}
    state = {
        key: draw(names[key], list(tensor.shape)) for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else [])
        for name in GOLDEN_LOGITS.files
    ],
)
def test_logits_with_nearest_upsampling_equal_timm(name):
    with torch.inference_mode():
        logits = classifier(name)(image("64x96", 64, 96))
    assert relative_error(logits, GOLDEN_LOGITS[name]) <= 1e-5


def test_logits_with_bilinear_upsampling_differ():
    with torch.inference_mode():
        logits = classifier("hrnet_w18_small", "bilinear")(image("64x96", 64, 96))
    assert relative_error(logits, GOLDEN_LOGITS["hrnet_w18_small"]) > 1e-3


def test_an_unknown_upsampling_is_refused():
    with pytest.raises(ConfigError, match="nearest"):
        HRNet("hrnet_w18_small_v1", upsample="nearst")


def test_logits_equal_an_installed_timm():
    timm = pytest.importorskip("timm", reason="timm needs an environment of its own")
    torch.manual_seed(0)
    theirs = timm.create_model("hrnet_w18_small", pretrained=False).eval()
    ours = ImageNetClassifier(HRNet("hrnet_w18_small_v1", upsample="nearest")).eval()
    names = {key.removeprefix("backbone."): key for key in ours.state_dict()}
    ours.load_state_dict({names[key]: tensor for key, tensor in theirs.state_dict().items()})
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
