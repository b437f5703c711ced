"""Conversion to and from mmsegmentation's names.

Source: mmsegmentation's ocr_head.py and self_attention_block.py, and mmcv's ConvModule.
"""

import pytest
import torch

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.mmseg import OCR, from_mmseg, to_mmseg
from hrseg.checkpoints.origins import recognise
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import image, official_weights, relative_error

NAMES = {"fcn": "w18_small_v2", "ocr": "w18_small_v2+ocr"}


def network(head):
    """Return the weights of an official file under hrseg's names."""
    return recognise(official_weights(NAMES[head]), "auto", "w.pth").state


@pytest.mark.parametrize("head", NAMES)
def test_logits_are_equal_after_the_biases_are_folded_into_the_norms(head):
    state = network(head)
    renamed, _ = to_mmseg(state)
    x, logits = image("mmseg", 64, 96), []
    for weights in (state, {"state_dict": renamed, "meta": {}}):
        model = create_model("hrnet_w18_small_v2", head=head).eval()
        report = load_weights(model, weights)
        assert report.missing == report.unexpected == report.mismatched == []
        with torch.no_grad():
            logits.append(model(x))
    assert relative_error(logits[1], logits[0].numpy()) < 1e-5
    assert report.family == "mmseg" and len(report.notes) == len(
        [name for name in state if name.endswith(("_layer.0.bias", "_head.0.bias", "_ocr.0.bias"))]
    )


def test_original_biases_are_not_restored_after_further_training():
    state = network("fcn")
    renamed, originals = to_mmseg(state)
    renamed["decode_head.convs.0.bn.running_mean"] += 1
    restored, notes = from_mmseg(renamed, originals)
    assert not restored["head.last_layer.0.bias"].any() and len(notes) == 1


def test_every_layer_of_an_mmseg_ocr_head_has_a_counterpart():
    # ConvModule contains `conv` and `bn`. Sequences of two convolutions are numbered.
    assert set(OCR.values()) == {
        f"decode_head.{name}."
        for name in (
            "0.convs.0.conv 0.convs.0.bn 0.conv_seg 1.bottleneck.conv 1.bottleneck.bn 1.conv_seg "
            "1.object_context_block.query_project.0.conv 1.object_context_block.query_project.0.bn "
            "1.object_context_block.query_project.1.conv 1.object_context_block.query_project.1.bn "
            "1.object_context_block.key_project.0.conv 1.object_context_block.key_project.0.bn "
            "1.object_context_block.key_project.1.conv 1.object_context_block.key_project.1.bn "
            "1.object_context_block.value_project.conv 1.object_context_block.value_project.bn "
            "1.object_context_block.out_project.conv 1.object_context_block.out_project.bn "
            "1.object_context_block.bottleneck.conv 1.object_context_block.bottleneck.bn"
        ).split()
    }


def test_a_head_unknown_to_mmseg_is_refused():
    state = network("fcn") | {"head.last_layer.9.weight": torch.ones(1)}
    with pytest.raises(ConfigError, match=r"head.last_layer.9.weight has no equivalent"):
        to_mmseg(state)
