import numpy as np
import pytest
import torch
from torch import nn

from hrseg.checkpoints.loading import load_weights, to_official
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests import weight_files
from tests.golden_weights import image, official_keys, official_weights, relative_error

VARIANT = "hrnet_w18_small_v1"
OFFICIAL = official_weights("w18_small_v1")
TORCH04 = weight_files.torch04(OFFICIAL)
IMAGENET = weight_files.imagenet(OFFICIAL)
MMSEG = weight_files.mmseg(OFFICIAL)
UNCOUNTED = weight_files.without_counters(OFFICIAL)


@pytest.fixture
def model():
    return create_model(VARIANT)


def logits(model):
    with torch.no_grad():
        return model.eval()(image("families", 64, 96))


def refusal(state, **arguments):
    with pytest.raises(ConfigError) as error:
        load_weights(create_model(VARIANT), state, **arguments)
    message = str(error.value)
    assert message.count("\n") < 4
    return message


class Torch04BatchNorm(nn.BatchNorm2d):
    """The authors' InPlaceABNSync(activation="none") in evaluation, by hand."""

    def forward(self, x):
        gamma, beta, mean, var = (
            v[:, None, None].double()
            for v in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        return ((gamma.abs() + 1e-5) * (x - mean) / (var + 1e-5).sqrt() + beta).float()


def test_a_torch04_file_gives_the_logits_of_a_network_with_such_norms(model):
    assert load_weights(model, TORCH04).family == "official_torch04"
    by_hand = create_model(VARIANT)
    load_weights(by_hand, TORCH04, source="official")
    as_batch_norm = logits(by_hand)
    for layer in by_hand.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = Torch04BatchNorm
    truth = logits(by_hand).numpy()
    assert relative_error(logits(model), truth) < 1e-5
    assert relative_error(as_batch_norm, truth) > 0.1


@pytest.mark.filterwarnings("ignore:.*is a no-op")  # No numbers are needed for this count.
def test_a_published_torch04_file_has_1534_keys_and_loads_whole():
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in official_keys("w48").items()}
        file = weight_files.prefixed("model.", weight_files.without_counters(state))
        file["loss.criterion.weight"] = torch.empty(19)
        model = create_model("hrnet_w48")
    assert len(file) == 1534
    report = load_weights(model, file, origin="hrnet_cs_torch04.pth")
    assert len(report.matched) == 1533
    assert report.missing == report.unexpected == report.mismatched == []
    assert "an official torch 0.4 HRNetV2-W48 with 19 classes" in str(report)


AS_THEY_ARE, ABSOLUTE = "norm weights taken as they are", "norm weights read as |weight| + 1e-5"
NEGATIVE = sum(int((TORCH04[key] < 0).sum()) for key in weight_files.norm_weights(TORCH04))
UNSIGNED = f"it has no batch counters and {NEGATIVE} of them are negative"


@pytest.mark.parametrize(
    ("state", "name", "note"),
    [
        (TORCH04, "w.pth", f"{ABSOLUTE}: {UNSIGNED}"),
        (TORCH04, "hrnet_cs_8090_torch11.pth", f"{AS_THEY_ARE}: it is named torch11"),
        (UNCOUNTED, "hrnet_lip_TORCH04.pth", f"{ABSOLUTE}: it is named torch04"),
        (UNCOUNTED, "w.pth", f"{AS_THEY_ARE}: none of them is negative"),
        (OFFICIAL, "w.pth", f"{AS_THEY_ARE}: it has batch counters"),
        (OFFICIAL, "w_torch04.pth", f"{ABSOLUTE}: it is named torch04, but has batch counters"),
    ],
)
def test_the_rule_of_the_norms_follows_from_name_and_keys_and_is_reported(
    state, name, note, model, tmp_path
):
    torch.save(state, tmp_path / name)
    report = load_weights(model, tmp_path / name)
    assert report.notes == [note]
    assert report.family == ("official_torch04" if ABSOLUTE in note else "official")
    assert note in str(report).splitlines()
    # A state dict that was read before is treated as its file.
    assert load_weights(model, state, origin=tmp_path / name).notes == [note]


def test_a_source_that_is_named_decides_and_the_report_warns(model):
    assert load_weights(model, TORCH04, source="official").notes == [
        f'warning: {AS_THEY_ARE}, as asked; source="auto" has them read as |weight| + 1e-5: '
        + UNSIGNED
    ]
    assert load_weights(model, OFFICIAL, source="official_torch04").family == "official_torch04"
    loaded = to_official(model)
    for name in weight_files.norm_weights(OFFICIAL):
        torch.testing.assert_close(loaded[name], OFFICIAL[name] + 1e-5)
    assert torch.equal(loaded["conv1.weight"], OFFICIAL["conv1.weight"])


@pytest.mark.parametrize("source", ["auto", "imagenet"])
def test_an_imagenet_file_initialises_the_whole_backbone(source, model, tmp_path):
    torch.save({"state_dict": IMAGENET}, tmp_path / "hrnetv2_w18_small_v1_imagenet.pth")
    first = {key: tensor.clone() for key, tensor in model.head.state_dict().items()}
    report = load_weights(
        model, tmp_path / "hrnetv2_w18_small_v1_imagenet.pth", source, purpose="initialise"
    )
    assert report.family == "imagenet"
    assert report.notes == ["classification head, 126 tensors not used"]
    assert report.unexpected == report.mismatched == []
    assert {key.partition(".")[0] for key in report.missing} == {"head"}
    for name, tensor in to_official(model).items():
        expected = first[name] if name.startswith("last_layer.") else IMAGENET[name]
        assert torch.equal(tensor, expected), name


def test_a_bare_backbone_initialises_as_official_or_as_imagenet(model):
    state = {key: t for key, t in OFFICIAL.items() if not key.startswith("last_layer.")}
    assert load_weights(model, state, purpose="initialise").family == "official"
    report = load_weights(model, state, "imagenet", purpose="initialise")
    assert report.family == "imagenet" and report.notes == []


def test_an_imagenet_file_is_refused_for_evaluation():
    message = refusal(IMAGENET, origin="w.pth")
    assert "w.pth is an ImageNet classification file (HRNetV2-W18-small-v1 without" in message
    assert 'purpose="initialise"' in message and "`model.weights`" in message


@pytest.mark.parametrize("source", ["auto", "mmseg"])
def test_an_mmseg_file_gives_the_logits_of_the_official_one(source, model, tmp_path):
    meta = {"CLASSES": ("road", "sky"), "config": "model = dict()", "epoch": 3, "iter": 9}
    torch.save({"meta": meta, "state_dict": MMSEG}, tmp_path / "fcn_hr18.pth")
    report = load_weights(model, tmp_path / "fcn_hr18.pth", source)
    assert report.family == "mmseg"
    assert report.missing == report.unexpected == report.mismatched == []
    assert report.notes == [
        "head.last_layer.0.bias set to 0: this convolution of an mmseg head has no bias"
    ]
    assert "an mmseg HRNetV2-W18-small-v1 with 19 classes" in str(report)
    official = create_model(VARIANT)
    load_weights(official, OFFICIAL)
    assert relative_error(logits(model), logits(official).numpy()) < 1e-5
    assert np.abs(OFFICIAL["last_layer.0.bias"].numpy()).max() > 0.1


def test_an_auxiliary_head_of_mmseg_is_named_and_not_used(model):
    auxiliary = {"auxiliary_head.conv_seg.weight": torch.ones(1)}
    assert load_weights(model, MMSEG | auxiliary).notes[0] == "auxiliary head, 1 tensors not used"


def test_an_mmseg_file_with_another_head_is_refused_by_name():
    deeper = MMSEG | {"decode_head.convs.1.conv.weight": torch.zeros(1)}
    message = refusal(deeper, origin="deep.pth")
    assert "deep.pth is an mmseg file with another head (decode_head.convs.1" in message
    assert "hrseg reads FCN and OCR heads" in message


@pytest.mark.parametrize(
    ("state", "source", "title"),
    [(TORCH04, "hrseg", "an official torch 0.4"), (MMSEG, "official", "an mmseg")],
)
def test_another_family_than_asked_for_is_refused_and_named(state, source, title):
    message = refusal(state, source=source, origin="w.pth")
    assert message.startswith(f"w.pth is {title}")
    assert f"file, but source is '{source}'" in message
    assert 'or "auto"' in message


@pytest.mark.parametrize(
    ("prefix", "state"), [("ema_model.module.", OFFICIAL), ("backbone.", MMSEG)]
)
def test_an_unknown_prefix_is_named_and_its_repair_works(prefix, state, model):
    state_dict = weight_files.prefixed(prefix, state) | {"loss.weight": torch.ones(19)}
    message = refusal(state_dict)
    assert f"its keys start with '{prefix}': remove this prefix" in message
    repair = message.partition("For example ")[2].removesuffix(".")
    assert load_weights(model, eval(repair, {"state_dict": state_dict})).missing == []


def test_weights_under_another_entry_are_found_and_named():
    message = refusal({"model": OFFICIAL, "epoch": 3}, origin="w.pth")
    assert "w.pth holds its HRNet weights in the entry 'model'" in message
    assert "torch.load(file, weights_only=True)['model']" in message


@pytest.mark.parametrize(
    "state", [{"fc.weight": torch.zeros(9, 5)}, {"epoch": 3}, {"state_dict": {0: torch.zeros(3)}}]
)
def test_unrelated_tensors_are_refused(state):
    message = refusal(state, origin="w.pth")
    assert "w.pth holds no HRNet weights: " in message
    assert "Expected a key stage2.0" in message


def test_integer_weights_are_refused():
    state = OFFICIAL | {"conv1.weight": OFFICIAL["conv1.weight"].to(torch.int8)}
    assert "conv1.weight is torch.int8, expected floating point" in refusal(state)
