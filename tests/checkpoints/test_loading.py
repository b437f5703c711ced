import json

import numpy as np
import pytest
import torch

from hrseg.checkpoints.loading import compare, load_weights, to_official
from hrseg.checkpoints.mmseg import RESTORE, to_mmseg
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import GOLDEN, official_keys, official_weights

VARIANT = "hrnet_w18_small_v1"
OFFICIAL = official_weights("w18_small_v1")


@pytest.fixture
def model():
    return create_model(VARIANT)


def equal(a, b):
    return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)


def prefixed(prefix, state):
    return {prefix + key: tensor for key, tensor in state.items()}


FULL_MODEL = {**prefixed("model.", OFFICIAL), "loss.criterion.weight": torch.ones(19)}
OFFICIAL_FILES = {
    "bare": OFFICIAL,
    "full_model": FULL_MODEL,
    "data_parallel_full_model": prefixed("module.", FULL_MODEL),
    "train_script": {"epoch": 3, "best_mIoU": np.float64(0.5), "state_dict": FULL_MODEL},
}


@pytest.mark.parametrize("kind", OFFICIAL_FILES)
def test_every_tensor_of_an_official_file_loads(kind, model, tmp_path):
    torch.save(OFFICIAL_FILES[kind], tmp_path / "w.pth")
    report = load_weights(model, tmp_path / "w.pth")
    assert report.family == "official"
    assert report.missing == report.unexpected == report.mismatched == []
    assert equal(to_official(model), OFFICIAL)


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_every_tensor_of_an_hrseg_checkpoint_loads(prefix, model, tmp_path):
    load_weights(model, OFFICIAL)
    state = prefixed(prefix, model.state_dict()) | {"normalize.mean": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "w.ckpt")
    model = create_model(VARIANT)
    assert load_weights(model, tmp_path / "w.ckpt").family == "hrseg"
    assert equal(to_official(model), OFFICIAL)


def refusal(model, state, **arguments):
    """Return the message of a refusal, and check that the model is unchanged."""
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        load_weights(model, state, **arguments)
    assert equal(model.state_dict(), before)
    assert error.value.exit_code == 2
    message = str(error.value)
    assert message.count("\n") < 4
    return message


@pytest.mark.parametrize("purpose", ["evaluate", "initialise"])
@pytest.mark.parametrize(
    ("small", "large", "difference"),
    [
        ("w18_small_v1", "w18_small_v2", "(64, 64, 1, 1) instead of (32, 64, 1, 1)"),
        # A W18 file contains every tensor of W18-small-v2, with the same shape.
        ("w18_small_v2", "w18", "966 unexpected"),
    ],
)
def test_the_error_for_a_larger_network_names_both_networks(small, large, difference, purpose):
    message = refusal(create_model(f"hrnet_{small}"), official_weights(large), purpose=purpose)
    expected, title = (name.replace("_", "-").capitalize() for name in (small, large))
    assert f"an official HRNetV2-{title} with 19 classes" in message
    assert f"Expected: HRNetV2-{expected} with 19 classes" in message
    assert difference in message


def test_another_number_of_classes_is_refused_for_evaluation_and_initialises_the_backbone():
    model = create_model(VARIANT, num_classes=11)
    message = refusal(model, OFFICIAL)
    assert "with 19 classes.\nExpected: HRNetV2-W18-small-v1 with 11 classes" in message
    assert "head.last_layer.3.weight is (19, 240, 1, 1) instead of (11, 240, 1, 1)" in message
    assert 'purpose="initialise"' in message
    classifier = model.head.last_layer[3].weight.clone()
    report = load_weights(model, OFFICIAL, purpose="initialise")
    assert report.mismatched == ["head.last_layer.3.weight", "head.last_layer.3.bias"]
    assert report.mismatched[0] in str(report)
    assert torch.equal(model.head.last_layer[3].weight, classifier)
    assert torch.equal(model.backbone.conv1.weight, OFFICIAL["conv1.weight"])
    assert len(report.matched) == len(OFFICIAL) - 2


def test_an_unknown_source_or_purpose_is_refused(model):
    choices = "Known: auto, official, official_torch04, imagenet, timm, mmseg, hrseg"
    assert choices in refusal(model, OFFICIAL, source="offical")
    assert "Known: evaluate, initialise" in refusal(model, OFFICIAL, purpose="train")


def test_damaged_files_and_other_formats_are_refused_by_name(model, tmp_path):
    torch.save(OFFICIAL, tmp_path / "zip")
    torch.save(OFFICIAL, tmp_path / "old", _use_new_zipfile_serialization=False)
    new, old = (tmp_path / "zip").read_bytes(), (tmp_path / "old").read_bytes()
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    contents = [new[: len(new) // 2], new[:-10], old[: len(old) // 2], b"", b"words\n", png]
    for content in contents:
        (tmp_path / "w.pth").write_bytes(content)
        assert "w.pth is damaged, truncated, or not a checkpoint" in refusal(
            model, tmp_path / "w.pth"
        )
    torch.save(torch.ones(2), tmp_path / "w.pth")
    assert "w.pth contains a Tensor" in refusal(model, tmp_path / "w.pth")


def test_a_url_a_missing_file_and_a_folder_are_refused(model, tmp_path):
    assert "is a URL" in refusal(model, "https://example.org/w.pth")
    assert str(tmp_path / "no.pth") in refusal(model, tmp_path / "no.pth")
    assert "No such file" in refusal(model, tmp_path / "no.pth")
    assert "Is a directory" in refusal(model, tmp_path)


def test_an_fcn_file_initialises_the_auxiliary_head_of_an_ocr_model():
    model = create_model(VARIANT, head="ocr")
    before = model.head.cls_head.weight.clone()
    report = load_weights(model, OFFICIAL, purpose="initialise")
    assert report.notes[-1] == "FCN head loaded as the auxiliary head"
    assert report.unexpected == report.mismatched == []
    for name in ("0.weight", "0.bias", "1.running_var", "3.weight"):
        loaded = model.head.aux_head.state_dict()[name]
        assert torch.equal(loaded, OFFICIAL[f"last_layer.{name}"])
    assert torch.equal(model.head.cls_head.weight, before)
    assert "missing" in refusal(model, OFFICIAL)


@pytest.mark.parametrize("variant", json.loads((GOLDEN / "official_keys.json").read_text()))
def test_every_tensor_of_every_variant_converts_to_mmseg_and_back(variant):
    name, _, head = variant.partition("+")
    # Each tensor is one expanded number, because only names and shapes are compared.
    state = {
        key: torch.zeros((), dtype=torch.long if key.endswith("tracked") else None).expand(shape)
        for key, shape in official_keys(variant).items()
    }
    with torch.device("meta"):
        model = create_model(f"hrnet_{name}", head=head or "fcn")
    official, report = compare(model, state)
    assert len(report.matched) == len(state)
    assert report.missing == report.unexpected == report.mismatched == []
    renamed, originals = to_mmseg(official.state)
    assert len(renamed) + len(originals) // 2 == len(state)
    mmseg, report = compare(model, {"state_dict": renamed, RESTORE: originals})
    assert report.family == "mmseg" and len(report.matched) == len(state)
    assert report.missing == report.unexpected == report.mismatched == []
    for weights in (official, mmseg):
        shapes = {key.partition(".")[2]: list(t.shape) for key, t in weights.state.items()}
        assert shapes == official_keys(variant)


def test_output_v1_and_v2_are_distinguished():
    v1, v2 = (create_model(VARIANT, output=output) for output in ("v1", "v2"))
    message = refusal(v2, v1.state_dict())
    assert "contains an hrseg HRNetV1-W18-small-v1 with 19 classes.\nExpected: HRNetV2-W18" in (
        message
    )
    report = load_weights(v1, OFFICIAL, purpose="initialise")
    assert "tensors of the other streams not used" in str(report)
    assert {name.partition(".")[0] for name in report.mismatched} == {"head"}
