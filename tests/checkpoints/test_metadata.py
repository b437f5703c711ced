import json

import pytest

import hrseg
from hrseg.checkpoints.metadata import FORMAT, ExportMetadata, build_metadata, read_metadata
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from tests.hostile import laughs

METADATA = {
    "architecture": {"backbone": "hrnet_w18", "head": "fcn", "num_classes": 2, "bn_momentum": 0.1},
    "class_names": ["road", "sky"],
    "palette": [[0, 0, 0], [255, 1, 2]],
    "flip_pairs": [[0, 1]],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "protocol": Protocol().to_dict(),
}


def test_metadata_keeps_its_format_version_and_unknown_keys_in_json():
    metadata = build_metadata(**METADATA | {"protocol": Protocol()})
    assert metadata == METADATA | {"format": FORMAT, "version": hrseg.__version__}
    unknown = {"calibration": {"temperature": 1.2}}
    restored = read_metadata(json.loads(json.dumps(metadata | unknown)), "w.ckpt")
    assert restored.to_dict() == metadata | unknown


def test_plugin_and_export_are_optional():
    export = ExportMetadata(input="uint8", output="ids")
    data = build_metadata(**METADATA | {"protocol": Protocol(), "plugin": "p.py", "export": export})
    metadata = read_metadata(data, "m.onnx")
    assert (metadata.plugin, metadata.export) == ("p.py", export)


INVALID = [
    ("architecture", [{"num_classes": 2},
                      {"backbone": "hrnet_w18", "num_classes": 2, "exec": "x"}]),
    ("class_names", [["road"], [1, 2], ["road", "a\x1b[2J"]]),
    ("palette", [[[0, 0, 0]], [[0, 0, 0], [0, 0, 256]]]),
    ("flip_pairs", [[[0, 2]]]),
    ("mean", [[0.5, 0.5, float("nan")]]),
    ("std", [[0, 0.2, 0.2]]),
    ("protocol", [{"scales": []}, {"unknown": 1}]),
    ("export", [{"input": "x", "output": "ids"}]),
    ("temperature", [0.0, -1.0, float("nan"), "2"]),
    ("format", [0]),
    ("version", ["\x1b[2J"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [(n, value) for n, values in INVALID for value in values]
)
def test_the_error_for_an_invalid_value_names_its_key(name, value):
    with pytest.raises(ConfigError, match=rf"w.ckpt: The metadata is invalid: {name}") as error:
        read_metadata(METADATA | {name: value}, "w.ckpt")
    assert str(error.value).isascii() and len(str(error.value).splitlines()) == 3


def test_missing_keys_are_named():
    incomplete = {key: value for key, value in METADATA.items() if key != "mean"}
    with pytest.raises(ConfigError, match=r"incomplete: mean\.\n"):
        read_metadata(incomplete, "w.ckpt")
    with pytest.raises(ConfigError, match="incomplete: architecture, class_names, palette"):
        read_metadata(None, "w.ckpt")


def test_the_error_for_a_newer_format_names_the_version_that_wrote_it():
    newer = {"format": 3, "version": "9.3.0rc1", "layers": "unknown"}
    with pytest.raises(ConfigError, match="Fix: `pip install --upgrade hrseg`") as error:
        read_metadata(newer, "w.ckpt")
    assert str(error.value).startswith("w.ckpt was written by hrseg 9.3.0rc1 in a newer format.")
    assert f"Expected: a format of hrseg {hrseg.__version__} or older" in str(error.value)


@pytest.mark.parametrize(
    "change",
    [{"more": laughs()}, {"class_names": ["a" * 10**7, "b"]}, {"mean": object()}],
)
def test_recursive_huge_or_non_plain_metadata_is_refused_before_validation(change):
    with pytest.raises(ConfigError, match="too large, or not plain data"):
        read_metadata(METADATA | change, "w.ckpt")


def test_255_classes_with_long_unicode_names_are_accepted():
    names = [f"{i} 道路 " + "x" * 90 for i in range(255)]
    changed = {"class_names": names, "palette": [[0, 0, 0]] * 255}
    architecture = METADATA["architecture"] | {"num_classes": 255}
    metadata = read_metadata(METADATA | changed | {"architecture": architecture}, "w.ckpt")
    assert list(metadata.class_names) == names
