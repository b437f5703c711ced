"""mmsegmentation's names: ocr_head.py, self_attention_block.py, and mmcv's ConvModule."""

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
    """An official file under hrseg's names."""
    return recognise(official_weights(NAMES[head]), "auto", "w.pth").state


@pytest.mark.parametrize("head", NAMES)
def test_mmseg_computes_the_same_without_the_biases(head):
    state = network(head)
    renamed, _ = to_mmseg(state)
    x, found = image("mmseg", 64, 96), []
    for weights in (state, {"state_dict": renamed, "meta": {}}):
        model = create_model("hrnet_w18_small_v2", head=head).eval()
        report = load_weights(model, weights)
        assert report.missing == report.unexpected == report.mismatched == []
        with torch.no_grad():
            found.append(model(x))
    assert relative_error(found[1], found[0].numpy()) < 1e-5
    assert report.family == "mmseg" and len(report.notes) == len(
        [name for name in state if name.endswith(("_layer.0.bias", "_head.0.bias", "_ocr.0.bias"))]
    )


def test_biases_of_weights_that_were_trained_on_are_not_brought_back():
    state = network("fcn")
    renamed, originals = to_mmseg(state)
    renamed["decode_head.convs.0.bn.running_mean"] += 1
    again, notes = from_mmseg(renamed, originals)
    assert not again["head.last_layer.0.bias"].any() and len(notes) == 1


def test_every_name_of_an_ocr_head_has_its_counterpart():
    # ConvModule: `conv` and `bn`; one convolution stands alone, two in a row are numbered.
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


def test_a_head_that_mmseg_does_not_have_is_not_written():
    state = network("fcn") | {"head.last_layer.9.weight": torch.ones(1)}
    with pytest.raises(ConfigError, match=r"head.last_layer.9.weight has no place"):
        to_mmseg(state)
