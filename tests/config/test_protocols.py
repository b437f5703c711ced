"""Evaluation protocols: presets and validation."""

import pytest

from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.errors import ConfigError


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_equals_its_copy_from_plain_data(name):
    protocol = PROTOCOLS[name]
    data = protocol.to_dict()
    assert all(isinstance(value, str | int | float | bool | list) for value in data.values())
    assert Protocol(**data) == protocol
    assert hash(Protocol(**data)) == hash(protocol)
    assert protocol.name == name


def test_missing_fields_of_an_older_checkpoint_are_those_of_plain():
    old = {"name": "plain", "scales": [1.0], "flip": True, "average": "softmax"}
    assert Protocol(**old) == Protocol(flip=True)


def test_earlier_versions_can_read_a_protocol_that_has_no_later_field():
    later = {"crop_padding", "threshold"}
    assert not later & set(PROTOCOLS["official_pascal_context"].to_dict())
    data = PROTOCOLS["official_ade20k"].changed(threshold=0.0).to_dict()
    assert data["crop_padding"] is False and data["threshold"] == 0


def test_a_protocol_is_printed_with_its_differences_from_plain():
    assert str(Protocol()) == "plain: scales 1"
    assert str(Protocol(scales=(0.5, 1), flip=True, window=(64, 96), absent_classes="zero")) == (
        "plain: scales 0.5, 1, flip, window 64x96, absent_classes zero"
    )
    kept = Protocol(pad_multiple=8, crop_padding=False)
    assert str(kept) == "plain: scales 1, pad_multiple 8, crop_padding false"


def test_the_presets_are_the_published_protocols():
    # HRNet README: six scales for Cityscapes, also 2.0 for the others; only a flip for LIP.
    cityscapes, pascal, lip = (
        PROTOCOLS[f"official_{name}"] for name in ("cityscapes", "pascal_context", "lip")
    )
    assert cityscapes.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert pascal.scales == (*cityscapes.scales, 2.0)
    assert pascal.stride == (int(520 * 2 / 3), int(520 * 2 / 3))
    # round(255 * (0.485, 0.456, 0.406)): the mean as a border colour of OpenCV.
    assert pascal.pad_color == (124, 116, 104)
    assert lip.scales == (1.0,) and lip.flip
    for protocol in (cityscapes, pascal, lip):
        assert protocol.average == "exp_logits" and protocol.absent_classes == "zero"
        assert protocol.flip_average == "logits"
    # ade20k.py returns no size of the padding, so that testval does not crop it.
    ade20k = PROTOCOLS["official_ade20k"]
    assert pascal.crop_padding and not ade20k.crop_padding
    assert ade20k.changed(name=pascal.name, crop_padding=True) == pascal
    mmseg = PROTOCOLS["mmseg"]
    assert mmseg.average == "softmax" and mmseg.absent_classes == "skipped"
    assert mmseg.flip_average == "scores" and mmseg.scores_at == "image"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": ()}, r"inference.scales is \[\].\nExpected: a list of numbers"),
        ({"scales": (1.0, 1)}, "each scale once"),
        ({"scales": (float("nan"),)}, "inference.scales"),
        ({"scales": 1.0}, "inference.scales is 1.0.\nExpected: a list"),
        ({"average": "softmx"}, r"(?s)average is 'softmx'.*Did you mean: softmax\?"),
        ({"window_border": None}, "inference.window_border is null.\nExpected: shift or pad"),
        ({"resize": (1, 2, 3)}, r"resize is \[1, 2, 3\].\n.*\[short side\], or \[height, width\]"),
        ({"window": (520,)}, r"inference.window is \[520\].\nExpected: \[\] or two whole numbers"),
        ({"window": (16, 64)}, "from 32"),
        ({"window": (64, 64), "stride": (32, 65)}, r"stride .*\n.*at most the window, \[64, 64\]"),
        ({"pad_color": (0, 0, 256)}, r"pad_color .*\nExpected: three whole numbers from 0 to 255"),
        ({"pad_multiple": 0}, "inference.pad_multiple is 0.\nExpected: a whole number from 1 to"),
        ({"base_size": True}, "inference.base_size is true"),
        ({"crop_padding": "keep"}, "crop_padding is 'keep'.\nExpected: true or false"),
        ({"windw": ()}, r"inference.windw: unknown key. Did you mean: window"),
    ],
)
def test_an_invalid_protocol_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Protocol(**arguments)
