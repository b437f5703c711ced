import pytest
import torch
from torch import nn

from hrseg.checkpoints.loading import load_weights
from hrseg.models import create_model
from hrseg.models.optimize import fold
from tests.golden_weights import image, official_weights, relative_error


@pytest.mark.parametrize("variant", ["w18_small_v1", "w18_small_v2", "w18"])
def test_a_folded_model_gives_the_same_logits(variant):
    model = create_model(f"hrnet_{variant}").eval()
    load_weights(model, official_weights(variant))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    x = image("97x131", 97, 131)
    with torch.inference_mode():
        expected = model.outputs(x)["out"]
        assert relative_error(fold(model).outputs(x)["out"], expected.numpy()) < 1e-5
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_a_model_in_training_is_folded_with_its_running_statistics():
    model = create_model("hrnet_w18_small_v1", num_classes=3, bn_momentum=0.5).train()
    model(torch.randn(2, 3, 64, 64))
    folded, x = fold(model), torch.randn(1, 3, 40, 40)
    assert model.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        torch.testing.assert_close(folded(x), model.eval()(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("head", ["fcn", "ocr"])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_weights_stored_in_bf16_give_the_logits_of_autocast(head, momentum):
    torch.manual_seed(0)
    model = create_model("hrnet_w18_small_v1", head=head, num_classes=5).eval()
    if momentum is None:  # a norm of batch statistics cannot be folded and stays in float32
        model.backbone.bn1 = nn.BatchNorm2d(64, track_running_stats=False)
    plain, stored = (fold(model, precision) for precision in ("32", "bf16"))
    x = torch.randn(2, 3, 97, 131)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, logits = plain.outputs(x), stored.outputs(x)
    assert stored.backbone.conv1.weight.dtype == torch.bfloat16
    for name, tensor in expected.items():
        assert torch.equal(logits[name], tensor)
