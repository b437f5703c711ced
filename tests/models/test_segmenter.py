import numpy as np
import pytest
import torch

from hrseg.checkpoints.loading import load_weights
from hrseg.errors import ConfigError
from hrseg.losses import OHEM, CrossEntropy
from hrseg.models import create_model
from hrseg.models.segmenter import BACKBONES, HEADS
from tests.golden_weights import CITYSCAPES_WEIGHTS, GOLDEN, image, labels, official_weights

TRAIN = np.load(GOLDEN / "train.npz")
LOSSES = {
    "ce": CrossEntropy(),
    "ce_weighted": CrossEntropy(CITYSCAPES_WEIGHTS),
    "ohem": OHEM(threshold=0.9, min_kept=2000),
}


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def train(loss, steps):
    """Train as for the golden file; return the losses and the norms of the state dict."""
    model = create_model("hrnet_w18_small_v2", bn_momentum=0.1).train()
    load_weights(model, official_weights("w18_small_v2"))
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=5e-4)
    losses = []
    for step in range(steps):
        value = loss(model(image(f"train{step}", 64, 96, batch=2)), labels(step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    tensors = [t for k, t in model.state_dict().items() if not k.endswith("num_batches_tracked")]
    return losses, [t.double().norm().item() for t in tensors]


# Batch norm over the 2x3 maps of the coarsest stream multiplies a rounding error by about 50 per
# step; even float64 differs by 1e-3 at step 4. Five steps agree only if the order of summation is
# the same, with two threads and the same oneDNN kernels. Then they agree bitwise.
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="other kernels, other rounding"
)
@pytest.mark.parametrize("name", LOSSES)
def test_five_training_steps_equal_those_of_the_authors_code(name, two_threads):
    losses, norms = train(LOSSES[name], steps=5)
    np.testing.assert_allclose(losses, TRAIN[f"{name}/losses"], rtol=1e-4)
    np.testing.assert_allclose(norms, TRAIN[f"{name}/param_norms"], rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_two_training_steps_agree_on_every_machine(name):
    losses, _ = train(LOSSES[name], steps=2)
    np.testing.assert_allclose(losses, TRAIN[f"{name}/losses"][:2], rtol=1e-4)


def test_upsampling_uses_align_corners():
    logits = torch.tensor([[[[0.0, 1.0]]]])
    aligned = create_model("hrnet_w18_small_v1", align_corners=True).upsample(logits, (1, 4))
    centred = create_model("hrnet_w18_small_v1").upsample(logits, (1, 4))
    torch.testing.assert_close(aligned.flatten(), torch.tensor([0, 1 / 3, 2 / 3, 1]))
    torch.testing.assert_close(centred.flatten(), torch.tensor([0, 0.25, 0.75, 1]))


@pytest.mark.parametrize("head", ["", "+ocr"])
def test_bf16_autocast_gives_close_float32_logits(head):
    model = create_model("hrnet_w18_small_v2", head=head[1:] or "fcn").eval()
    load_weights(model, official_weights(f"w18_small_v2{head}"))
    x = image("64x96", 64, 96)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x)
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert (logits - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "hrnet_w18", "output": "v3"}, "unknown output 'v3'"),
        ({"backbone": "hrnet_w18", "head": "fnc"}, "unknown head 'fnc'. Did you mean: fcn"),
        ({"backbone": "hrnet_w18", "num_classes": 256}, r"num_classes is 256.\nExpected: 1 to 255"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        create_model(**arguments)


def test_the_docstring_names_every_backbone_and_head():
    assert all(f'"{name}"' in str(create_model.__doc__) for name in [*BACKBONES, *HEADS])


def test_swapped_arguments_of_load_weights_are_reported():
    with pytest.raises(
        ConfigError, match=r"got a str as the model(.|\n)*load_weights\(model, path"
    ):
        load_weights("a.pth", create_model("hrnet_w18_small_v1"))
