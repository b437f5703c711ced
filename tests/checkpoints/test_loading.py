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
def test_every_official_file_loads_whole(kind, model, tmp_path):
    torch.save(OFFICIAL_FILES[kind], tmp_path / "w.pth")
    report = load_weights(model, tmp_path / "w.pth")
    assert report.family == "official"
    assert report.missing == report.unexpected == report.mismatched == []
    assert equal(to_official(model), OFFICIAL)


@pytest.mark.parametrize("prefix", ["model.", "model._orig_mod."])
def test_hrseg_checkpoints_load_whole(prefix, model, tmp_path):
    load_weights(model, OFFICIAL)
    state = prefixed(prefix, model.state_dict()) | {"normalize.mean": torch.ones(3)}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "w.ckpt")
    model = create_model(VARIANT)
    assert load_weights(model, tmp_path / "w.ckpt").family == "hrseg"
    assert equal(to_official(model), OFFICIAL)


def refusal(model, state, **arguments):
    """The message of a refusal that left the model as it was."""
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
        # Every tensor of W18-small-v2 is in a W18 file, with the same shape.
        ("w18_small_v2", "w18", "966 too many"),
    ],
)
def test_a_larger_network_is_refused_and_named(small, large, difference, purpose):
    message = refusal(create_model(f"hrnet_{small}"), official_weights(large), purpose=purpose)
    expected, title = (name.replace("_", "-").capitalize() for name in (small, large))
    assert f"an official HRNetV2-{title} with 19 classes" in message
    assert f"expected HRNetV2-{expected} with 19 classes" in message
    assert difference in message


def test_other_classes_are_refused_for_evaluation_and_keep_the_backbone_for_initialisation():
    model = create_model(VARIANT, num_classes=11)
    message = refusal(model, OFFICIAL)
    assert "with 19 classes, expected HRNetV2-W18-small-v1 with 11 classes" in message
    assert "head.last_layer.3.weight is (19, 240, 1, 1) instead of (11, 240, 1, 1)" in message
    assert 'purpose="initialise"' in message
    classifier = model.head.last_layer[3].weight.clone()
    report = load_weights(model, OFFICIAL, purpose="initialise")
    assert report.mismatched == ["head.last_layer.3.weight", "head.last_layer.3.bias"]
    assert report.mismatched[0] in str(report)
    assert torch.equal(model.head.last_layer[3].weight, classifier)
    assert torch.equal(model.backbone.conv1.weight, OFFICIAL["conv1.weight"])
    assert len(report.matched) == len(OFFICIAL) - 2


def test_a_wrong_source_or_purpose_is_refused(model):
    known = "Known: auto, official, official_torch04, imagenet, timm, mmseg, hrseg"
    assert known in refusal(model, OFFICIAL, source="offical")
    assert "Known: evaluate, initialise" in refusal(model, OFFICIAL, purpose="train")


def test_damaged_and_other_files_are_refused_by_name(model, tmp_path):
    torch.save(OFFICIAL, tmp_path / "whole")
    torch.save(OFFICIAL, tmp_path / "old", _use_new_zipfile_serialization=False)
    whole, old = (tmp_path / "whole").read_bytes(), (tmp_path / "old").read_bytes()
    png = b"\x89PNG\r\n\x1a\n" + bytes(100)
    contents = [whole[: len(whole) // 2], whole[:-10], old[: len(old) // 2], b"", b"words\n", png]
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


def test_an_fcn_file_draws_the_regions_of_an_ocr_head():
    model = create_model(VARIANT, head="ocr")
    before = model.head.cls_head.weight.clone()
    report = load_weights(model, OFFICIAL, purpose="initialise")
    assert report.notes[-1] == "FCN head taken as the auxiliary head"
    assert report.unexpected == report.mismatched == []
    for name in ("0.weight", "0.bias", "1.running_var", "3.weight"):
        taken = model.head.aux_head.state_dict()[name]
        assert torch.equal(taken, OFFICIAL[f"last_layer.{name}"])
    assert torch.equal(model.head.cls_head.weight, before)
    assert "missing" in refusal(model, OFFICIAL)


@pytest.mark.parametrize("variant", json.loads((GOLDEN / "official_keys.json").read_text()))
def test_every_tensor_of_every_variant_is_matched_both_ways(variant):
    name, _, head = variant.partition("+")
    # One number stands for each tensor: names and shapes are what counts.
    state = {
        key: torch.zeros((), dtype=torch.long if key.endswith("tracked") else None).expand(shape)
        for key, shape in official_keys(variant).items()
    }
    with torch.device("meta"):
        model = create_model(f"hrnet_{name}", head=head or "fcn")
    found, report = compare(model, state)
    assert len(report.matched) == len(state)
    assert report.missing == report.unexpected == report.mismatched == []
    renamed, originals = to_mmseg(found.state)
    assert len(renamed) + len(originals) // 2 == len(state)
    mmseg, report = compare(model, {"state_dict": renamed, RESTORE: originals})
    assert report.family == "mmseg" and len(report.matched) == len(state)
    assert report.missing == report.unexpected == report.mismatched == []
    for weights in (found, mmseg):
        back = {key.partition(".")[2]: list(t.shape) for key, t in weights.state.items()}
        assert back == official_keys(variant)


def test_output_v1_and_v2_are_distinguished():
    v1, v2 = (create_model(VARIANT, output=output) for output in ("v1", "v2"))
    message = refusal(v2, v1.state_dict())
    assert "holds an hrseg HRNetV1-W18-small-v1 with 19 classes, expected HRNetV2-W18" in message
    report = load_weights(v1, OFFICIAL, purpose="initialise")
    assert "tensors of the other streams not used" in str(report)
    assert {name.partition(".")[0] for name in report.mismatched} == {"head"}
