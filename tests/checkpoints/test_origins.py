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
    """Reference for the authors' InPlaceABNSync(activation="none") in evaluation mode."""

    def forward(self, x):
        gamma, beta, mean, var = (
            v[:, None, None].double()
            for v in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        return ((gamma.abs() + 1e-5) * (x - mean) / (var + 1e-5).sqrt() + beta).float()


def test_a_torch04_file_gives_the_logits_of_a_network_with_inplace_abn(model):
    assert load_weights(model, TORCH04).family == "official_torch04"
    reference = create_model(VARIANT)
    load_weights(reference, TORCH04, source="official")
    with_batch_norm = logits(reference)
    for layer in reference.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = Torch04BatchNorm
    expected = logits(reference).numpy()
    assert relative_error(logits(model), expected) < 1e-5
    assert relative_error(with_batch_norm, expected) > 0.1


@pytest.mark.filterwarnings("ignore:.*is a no-op")  # meta tensors are sufficient to count keys
def test_all_1534_keys_of_a_published_torch04_file_load():
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


UNCHANGED, ABSOLUTE = "norm weights unchanged", "norm weights read as |weight| + 1e-5"
IN_NAME = "the file name contains"
NEGATIVE = sum(int((TORCH04[key] < 0).sum()) for key in weight_files.norm_weights(TORCH04))
HAS_NEGATIVE = f"the file has no batch counters, and {NEGATIVE} norm weights are negative"


@pytest.mark.parametrize(
    ("state", "name", "note"),
    [
        (TORCH04, "w.pth", f"{ABSOLUTE}: {HAS_NEGATIVE}"),
        (TORCH04, "hrnet_cs_8090_torch11.pth", f"{UNCHANGED}: {IN_NAME} torch11"),
        (UNCOUNTED, "hrnet_lip_TORCH04.pth", f"{ABSOLUTE}: {IN_NAME} torch04"),
        (UNCOUNTED, "w.pth", f"{UNCHANGED}: none is negative"),
        (OFFICIAL, "w.pth", f"{UNCHANGED}: the file has batch counters"),
        (OFFICIAL, "w_torch04.pth", f"{ABSOLUTE}: {IN_NAME} torch04, but it has batch counters"),
    ],
)
def test_file_name_and_keys_decide_how_norm_weights_are_read(state, name, note, model, tmp_path):
    torch.save(state, tmp_path / name)
    report = load_weights(model, tmp_path / name)
    assert report.notes == [note]
    assert report.family == ("official_torch04" if ABSOLUTE in note else "official")
    assert note in str(report).splitlines()
    # A state dict is treated like the file in `origin`.
    assert load_weights(model, state, origin=tmp_path / name).notes == [note]


def test_an_explicit_source_overrides_the_recognised_one_with_a_warning(model):
    assert load_weights(model, TORCH04, source="official").notes == [
        f'warning: {UNCHANGED}, as requested; with source="auto" they are '
        f"read as |weight| + 1e-5: {HAS_NEGATIVE}"
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


def test_an_auxiliary_head_of_mmseg_is_ignored_with_a_note(model):
    auxiliary = {"auxiliary_head.conv_seg.weight": torch.ones(1)}
    assert load_weights(model, MMSEG | auxiliary).notes[0] == "auxiliary head, 1 tensors not used"


def test_an_mmseg_file_with_an_unsupported_head_is_refused():
    deeper = MMSEG | {"decode_head.convs.1.conv.weight": torch.zeros(1)}
    message = refusal(deeper, origin="deep.pth")
    assert "deep.pth is an mmseg file with an unsupported head (decode_head.convs.1" in message
    assert "Expected: an FCN head (decode_head.convs.0.conv, " in message


@pytest.mark.parametrize(
    ("state", "source", "title"),
    [(TORCH04, "hrseg", "an official torch 0.4"), (MMSEG, "official", "an mmseg")],
)
def test_a_family_other_than_the_requested_one_is_refused(state, source, title):
    message = refusal(state, source=source, origin="w.pth")
    assert message.startswith(f"w.pth is {title}")
    assert f"file, but source is '{source}'" in message
    assert 'or "auto"' in message


@pytest.mark.parametrize(
    ("prefix", "state"), [("ema_model.module.", OFFICIAL), ("backbone.", MMSEG)]
)
def test_the_suggested_fix_for_an_unknown_prefix_works(prefix, state, model):
    state_dict = weight_files.prefixed(prefix, state) | {"loss.weight": torch.ones(19)}
    message = refusal(state_dict)
    assert f"weights whose keys start with '{prefix}'.\nExpected: keys without" in message
    fix = message.partition("Fix: ")[2].strip("`")
    assert load_weights(model, eval(fix, {"state_dict": state_dict})).missing == []


def test_the_error_names_the_entry_with_the_weights():
    message = refusal({"model": OFFICIAL, "epoch": 3}, origin="w.pth")
    assert "w.pth contains HRNet weights in the entry 'model'" in message
    assert "torch.load(file, weights_only=True)['model']" in message


@pytest.mark.parametrize(
    "state", [{"fc.weight": torch.zeros(9, 5)}, {"epoch": 3}, {"state_dict": {0: torch.zeros(3)}}]
)
def test_unrelated_tensors_are_refused(state):
    message = refusal(state, origin="w.pth")
    assert "w.pth contains no HRNet weights: " in message
    assert "Expected: a key stage2.0" in message


def test_integer_weights_are_refused():
    state = OFFICIAL | {"conv1.weight": OFFICIAL["conv1.weight"].to(torch.int8)}
    assert "conv1.weight is torch.int8.\nExpected: floating point" in refusal(state)
