import pytest
import torch

from hrseg.checkpoints.loading import load_weights
from hrseg.models import create_backbone
from tests.golden_weights import official_weights
from tests.weight_files import imagenet

SMALL = "hrnet_w18_small_v1"  # streams of 16, 32, 64 and 128 channels


@pytest.mark.parametrize(
    ("output", "channels", "strides", "names"),
    [
        ("v1", [16], [4], ["0"]),
        ("v2", [240], [4], ["0"]),
        ("v2p", [256] * 5, [4, 8, 16, 32, 64], ["0", "1", "2", "3", "pool"]),
    ],
)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (47, 101)])
def test_maps_have_the_declared_channels_and_strides(
    output, channels, strides, names, height, width
):
    backbone = create_backbone(SMALL, output).eval()
    assert (backbone.channels, backbone.strides) == (channels, strides)
    assert backbone.out_channels == channels[0]
    with torch.no_grad():
        maps = backbone(torch.randn(2, 3, height, width))
    assert list(maps) == names
    for feature, channel, stride in zip(maps.values(), channels, strides, strict=True):
        assert feature.shape == (2, channel, -(-height // stride), -(-width // stride))


def test_a_level_is_the_average_of_squares_of_the_finest_level():
    backbone = create_backbone(SMALL).eval()
    for conv in backbone.fpn_convs:
        torch.nn.init.dirac_(conv.weight)
        torch.nn.init.zeros_(conv.bias)
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 64))
    finest = maps["0"]
    torch.testing.assert_close(maps["1"][..., 1, 2], finest[..., 2:4, 4:6].mean((2, 3)))
    torch.testing.assert_close(maps["pool"][..., 0, 0], finest.mean((2, 3)))


@pytest.mark.parametrize("output", ["v1", "v2", "v2p"])
def test_every_representation_loads_imagenet_weights(output):
    backbone = create_backbone(SMALL, output)
    state = official_weights("w18_small_v1")
    report = load_weights(backbone, imagenet(state), purpose="initialise")
    assert torch.equal(backbone.backbone.conv1.weight, state["conv1.weight"])
    missing = [name for name in report.missing if name.startswith("backbone.")]
    assert not missing and not report.mismatched
    assert any("output v1" in note for note in report.notes) == (output == "v1")


@pytest.mark.parametrize("output", ["v1", "v2", "v2p"])
def test_every_parameter_has_a_gradient(output):
    # DistributedDataParallel fails at a parameter without a gradient.
    backbone = create_backbone(SMALL, output)
    sum(x.mean() for x in backbone(torch.randn(2, 3, 64, 64)).values()).backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []


def test_torchvision_trains_on_the_pyramid():
    try:  # the import fails if it was built for another torch
        from torchvision.models import detection
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision: {error}")
    torch.manual_seed(0)
    backbone = create_backbone(SMALL)
    model = detection.MaskRCNN(backbone, num_classes=3, min_size=128, max_size=160)
    image, mask = torch.rand(3, 120, 150), torch.zeros(1, 120, 150, dtype=torch.uint8)
    mask[0, 20:80, 30:90] = 1
    boxes, labels = torch.tensor([[30.0, 20.0, 90.0, 80.0]]), torch.tensor([1])
    target = {"boxes": boxes, "labels": labels, "masks": mask}
    losses = model.train()([image, image], [target, target])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        detections = model.eval()([image])[0]
    assert detections["boxes"].shape[1:] == (4,)
