"""Ablation switches of the backbone: fusions of the streams, outputs, and their counts.

Sources of the published counts: README of leoxiaobin/deep-high-resolution-net.pytorch (HRNetV1 for
poses) and of HRNet/HRNet-Image-Classification; for W64, whose row it lacks, mmpretrain's table.
"""

from itertools import product

import pytest
import torch
from torch import nn

from hrseg.benchmark.measure import multiply_adds
from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models.classifier import ImageNetClassifier
from hrseg.models.hrnet import EXCHANGES, OUTPUTS, HRNet
from hrseg.models.optimize import fold
from tests.golden_weights import image

SMALL = "hrnet_w18_small_v2"  # 1, 3 and 2 modules in the stages 2, 3 and 4


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def on_meta(backbone, **switches):
    with torch.device("meta"):
        return create_model(backbone, **switches)


def fusion_parameters(channels):
    """Return the parameters of one fusion: all pairs of different streams."""
    count = 0
    for source, target in product(range(len(channels)), repeat=2):
        c_in, c_out = channels[source], channels[target]
        if source > target:  # 1x1 convolution and batch norm
            count += c_in * c_out + 2 * c_out
        elif source < target:  # 3x3 convolutions of stride 2, each with a batch norm
            count += (target - source - 1) * (9 * c_in * c_in + 2 * c_in)
            count += 9 * c_in * c_out + 2 * c_out
    return count


@pytest.mark.parametrize(("exchange", "units"), [("all", 8), ("stages", 3), ("final", 1)])
def test_the_number_of_fusions_is_that_of_the_paper(exchange, units):
    backbone = on_meta("hrnet_w48", exchange=exchange).backbone
    modules = [*backbone.stage2, *backbone.stage3, *backbone.stage4]
    assert len(modules) == 8
    assert [len(module.fuse_layers) > 0 for module in modules].count(True) == units
    assert len(modules[-1].fuse_layers) == 4


def test_without_fusions_their_parameters_are_missing():
    two, three, four = ([48 * 2**i for i in range(n)] for n in (2, 3, 4))
    inner = 3 * fusion_parameters(three) + 2 * fusion_parameters(four)
    last = fusion_parameters(two) + fusion_parameters(three)
    counts = [parameters(on_meta("hrnet_w48", exchange=exchange)) for exchange in EXCHANGES]
    assert counts == [65_859_379, 65_859_379 - inner, 65_859_379 - inner - last]
    assert counts[1:] == [61_299_667, 60_908_563]
    # Worked by hand: 5216 in stage 2 and 38624 in stage 3 for streams of 16, 32 and 64 channels.
    assert parameters(on_meta("hrnet_w18_small_v1", exchange="final")) == 1_540_819 - 5216 - 38624


def sources(modules):
    """Return for each output stream the input streams whose change changes it."""
    torch.manual_seed(0)
    widths = [branch[0].conv1.in_channels for branch in modules[0].branches]
    features = [torch.rand(1, width, 32 >> i, 32 >> i) for i, width in enumerate(widths)]
    results = []
    for changed in [None, *range(len(widths))]:
        with torch.no_grad():
            results.append(modules([x + (i == changed) for i, x in enumerate(features)]))
    first, *others = results
    return [
        [i for i, result in enumerate(others) if not torch.equal(x, result[stream])]
        for stream, x in enumerate(first)
    ]


def test_with_exchange_final_a_coarse_stream_reaches_the_fine_one_only_in_the_last_module():
    backbone = HRNet(SMALL, exchange="final").eval()
    assert sources(backbone.stage2) == [[0], [1]]
    assert sources(backbone.stage3) == [[0], [1], [2]]
    assert sources(backbone.stage4[:-1]) == [[0], [1], [2], [3]]
    assert sources(backbone.stage4) == [[0, 1, 2, 3]] * 4


def test_with_exchange_stages_the_streams_of_a_stage_meet_only_in_its_last_module():
    backbone = HRNet(SMALL, exchange="stages").eval()
    assert sources(backbone.stage2) == [[0, 1]] * 2
    assert sources(backbone.stage3[:-1]) == [[0], [1], [2]]
    assert sources(backbone.stage3) == [[0, 1, 2]] * 3
    assert sources(HRNet(SMALL).eval().stage3[:1]) == [[0, 1, 2]] * 3


def test_a_module_without_fusion_returns_its_residual_blocks_unchanged():
    module = HRNet(SMALL, exchange="final").eval().stage2[0]
    features = [torch.randn(1, 18, 16, 16), torch.randn(1, 36, 8, 8)]
    with torch.no_grad():
        expected = [branch(x) for branch, x in zip(module.branches, features, strict=True)]
        streams = module(features)
    assert all(torch.equal(a, b) for a, b in zip(streams, expected, strict=True))
    assert all((x >= 0).all() for x in streams)  # so that a ReLU would not change them


@pytest.mark.parametrize(("output", "stream"), [("stream_2", 1), ("stream_3", 2), ("stream_4", 3)])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_output_of_one_stream_is_that_stream_of_v2(output, stream, exchange):
    torch.manual_seed(0)
    v2 = HRNet(SMALL, exchange=exchange).eval()
    single = HRNet(SMALL, output=output, exchange=exchange).eval()
    assert single.load_state_dict(v2.state_dict(), strict=False).missing_keys == []
    assert (single.channels, single.strides) == ([18 * 2**stream], [4 * 2**stream])
    x = image("ablation", 64, 97)
    with torch.no_grad():
        (features,) = single(x)
        torch.testing.assert_close(features, v2(x)[stream])


def test_output_v1h_is_v1_after_a_convolution_to_the_channels_of_v2():
    torch.manual_seed(0)
    v1, wide = HRNet(SMALL, output="v1").eval(), HRNet(SMALL, output="v1h").eval()
    assert (wide.channels, wide.strides) == ([15 * 18], [4])
    assert parameters(wide) - parameters(v1) == 18 * 270 + 2 * 270
    wide.load_state_dict(v1.state_dict(), strict=False)
    with torch.no_grad():
        (fine,), (features,) = v1(image("ablation", 64, 96)), wide(image("ablation", 64, 96))
        weight = wide.widen[0].weight[:, :, 0, 0]
        expected = torch.einsum("oc,bchw->bohw", weight, fine).clamp(min=0)
    torch.testing.assert_close(features, expected / (1 + 1e-5) ** 0.5)  # a new batch norm


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize(
    ("exchange", "head"), [("all", "ocr"), ("stages", "fcn"), ("final", "fcn")]
)
def test_every_combination_segments_any_size_also_with_folded_norms(output, exchange, head):
    torch.manual_seed(0)
    model = create_model("hrnet_w18_small_v1", head, 3, exchange=exchange, output=output).eval()
    stride, x = model.backbone.strides[0], image("ablation", 65, 97)
    with torch.inference_mode():
        out = model.outputs(x)["out"]
        assert out.shape == (1, 3, -(-65 // stride), -(-97 // stride))
        logits = model(x)
        assert logits.shape == (1, 3, 65, 97)
        torch.testing.assert_close(fold(model)(x), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switch", ["exchange", "output"])
def test_a_misspelt_switch_is_refused_with_the_known_values(switch):
    with pytest.raises(ConfigError, match=rf"unknown {switch} 'finl'(?s:.*)Known: .*(final|v1h)"):
        create_model(SMALL, **{switch: "finl"})


@pytest.mark.parametrize(
    ("width", "size", "millions", "gmacs"),
    [
        (32, (256, 192), 28.5, 7.1),
        (48, (384, 288), 63.6, 32.9),
    ],
)
def test_v1_has_the_published_counts_of_the_pose_network(width, size, millions, gmacs):
    with torch.device("meta"):
        backbone, keypoints = HRNet(f"hrnet_w{width}", output="v1"), nn.Conv2d(width, 17, 1)
    head = width * 17 * size[0] * size[1] // 16
    assert round((parameters(backbone) + parameters(keypoints)) / 1e6, 1) == millions
    assert round((multiply_adds(backbone, size) + head) / 2**30, 1) == gmacs


@pytest.mark.parametrize(
    ("width", "millions", "gmacs"),
    [
        (18, 21.3, "3.99"),
        (30, 37.7, "7.55"),
        (32, 41.2, "8.31"),
        (40, 57.6, "11.8"),
        (44, 67.1, "13.9"),
        (48, 77.5, "16.1"),
        (64, 128.1, None),
    ],
)
def test_every_width_has_the_published_counts_of_the_classifier(width, millions, gmacs):
    with torch.device("meta"):
        model = ImageNetClassifier(HRNet(f"hrnet_w{width}", upsample="nearest"))
    assert round(parameters(model) / 1e6, 1) == millions
    assert gmacs is None or f"{multiply_adds(model, (224, 224)) / 2**30:.3g}" == gmacs
