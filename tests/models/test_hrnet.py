import numpy as np
import pytest
import torch

from hrseg.checkpoints.loading import load_weights, to_official
from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models.hrnet import HRNet
from tests.golden_weights import GOLDEN, image, official_keys, official_weights, relative_error

LOGITS = np.load(GOLDEN / "hrnet_logits.npz")
PARAMETERS = {
    "hrnet_w18_small_v1": 1_540_819,
    "hrnet_w18_small_v2": 3_939_579,
    "hrnet_w18": 9_641_119,
    "hrnet_w30": 26_024_695,
    "hrnet_w32": 29_546_515,
    "hrnet_w40": 45_894_435,
    "hrnet_w44": 55_424_779,
    "hrnet_w48": 65_859_379,
    "hrnet_w64": 116_640_339,
}
OFFICIAL = [name for name in PARAMETERS if name not in ("hrnet_w30", "hrnet_w44", "hrnet_w64")]


@pytest.mark.parametrize("entry", LOGITS.files)
def test_logits_equal_those_of_the_authors_code(entry):
    variant, align, size = entry.split("/")
    height, width = map(int, size.split("x"))
    model = create_model(f"hrnet_{variant}", align_corners=align == "align_True").eval()
    load_weights(model, official_weights(variant))
    with torch.no_grad():
        logits = model.outputs(image(size, height, width))["out"]
    assert relative_error(logits, LOGITS[entry]) <= 1e-4
    np.testing.assert_allclose(logits.numpy(), LOGITS[entry], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("backbone", "count"), PARAMETERS.items())
def test_the_number_of_parameters_equals_the_authors(backbone, count):
    with torch.device("meta"):
        model = create_model(backbone)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize("backbone", OFFICIAL)
def test_the_state_dict_equals_the_authors(backbone):
    with torch.device("meta"):
        model = create_model(backbone)
    shapes = {key: list(tensor.shape) for key, tensor in to_official(model).items()}
    assert shapes == official_keys(backbone.removeprefix("hrnet_"))


@pytest.mark.parametrize("shape", [(1, 3, 31, 64), (1, 1, 64, 64), (3, 64, 64)])
def test_the_error_for_an_invalid_image_names_the_expected_shape(shape):
    with pytest.raises(ConfigError, match=r"(?s)shape \(.*\(B, 3, H, W\) with H and W at least 32"):
        HRNet("hrnet_w18_small_v1")(torch.zeros(shape))


def test_output_v1_is_the_first_stream_of_v2():
    torch.manual_seed(0)
    v2 = HRNet("hrnet_w18_small_v1").eval()
    v1 = HRNet("hrnet_w18_small_v1", output="v1").eval()
    v1.load_state_dict(v2.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        (finest,) = v1(x)
        torch.testing.assert_close(finest, v2(x)[0])
    assert (v1.channels, v1.strides) == ([16], [4])
