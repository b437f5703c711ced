import json

import pytest

import hrseg
from hrseg.checkpoints.metadata import FORMAT, build_metadata, check_facts
from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError

FACTS = {
    "architecture": {"backbone": "hrnet_w18", "head": "fcn", "num_classes": 2, "bn_momentum": 0.1},
    "class_names": ["road", "sky"],
    "palette": [[0, 0, 0], [255, 1, 2]],
    "flip_pairs": [[0, 1]],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "protocol": Protocol().to_dict(),
}


def test_what_hrseg_writes_is_taken():
    check_facts(json.loads(json.dumps(FACTS)), "w.ckpt")


WRONG = [
    ("architecture", [{}, "x", {"backbone": ["hrnet_w18"], "num_classes": 2},
                      {"backbone": "hrnet_w18", "num_classes": 2, "exec": "x"}]),
    ("class_names", [["road"], "road", [1, 2], ["a", "b", "c"]]),
    ("palette", [[[0, 0, 0]], [[0, 0, 0], [0, 0, 256]], [[0, 0, 0], [0, 0]], "x", [1, 2]]),
    ("flip_pairs", [[[0, 2]], [[0]], "x", [3], [[0, 0.5]]]),
    ("mean", [[0.5], None, [0.5, 0.5, float("nan")], ["a", "b", "c"], [10**400, 0, 0]]),
    ("std", [[0, 0.2, 0.2], [0.2, 0.2, float("inf")]]),
    ("protocol", [[1], {"scales": []}, {"unknown": 1}, None, {"window_above": "x"}, {"name": 5},
                  {"pad_multiple": 10**9}, {"base_size": 0.5}]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(n, value) for n, values in WRONG for value in values])
def test_what_no_model_has_is_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=rf"w.ckpt: .* damaged: {name}"):
        check_facts(FACTS | {name: value}, "w.ckpt")


@pytest.mark.parametrize("name", FACTS)
def test_what_is_missing_is_named(name):
    less = {key: value for key, value in FACTS.items() if key != name}
    with pytest.raises(ConfigError, match=rf"incomplete: {name}"):
        check_facts(less, "w.ckpt")


@pytest.mark.parametrize("facts", [None, 5, [], "x", {}])
def test_what_is_no_table_of_facts_is_refused(facts):
    with pytest.raises(ConfigError, match="incomplete: architecture"):
        check_facts(facts, "w.ckpt")


def test_what_is_written_says_its_format_and_version_and_is_taken():
    metadata = build_metadata(**FACTS | {"protocol": Protocol()})
    assert metadata == FACTS | {"format": FORMAT, "version": hrseg.__version__}
    check_facts(metadata, "w.ckpt")


def test_a_newer_format_is_refused_by_name_whatever_else_it_says():
    newer = {"format": FORMAT + 1, "version": "9.3.0rc1", "layers": "unheard of"}
    with pytest.raises(ConfigError) as caught:
        check_facts(newer, "w.ckpt")
    text = str(caught.value)
    assert text.startswith("w.ckpt was written by hrseg 9.3.0rc1, ")
    assert f"this hrseg, {hrseg.__version__}, " in text and "Upgrade: pip install" in text


@pytest.mark.parametrize("version", [None, 5, "", "\x1b[2J", "1" * 99, "1.0\n"])
def test_a_version_that_is_none_is_not_repeated(version):
    with pytest.raises(ConfigError, match=r"w.ckpt was written by a newer hrseg, "):
        check_facts(FACTS | {"format": 10**5000, "version": version}, "w.ckpt")
    with pytest.raises(ConfigError, match="damaged: version"):
        check_facts(FACTS | {"version": version}, "w.ckpt")


@pytest.mark.parametrize("said", [0, -1, True, 1.0, "1", None])
def test_a_format_that_is_none_is_damage(said):
    with pytest.raises(ConfigError, match="damaged: format"):
        check_facts(FACTS | {"format": said}, "w.ckpt")


def endless():
    found = ["ha"]
    for _ in range(60):
        found = [found, found]
    return found


def inside_itself():
    found = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "facts",
    [FACTS | {"protocol": {"average": endless()}}, FACTS | {"more": inside_itself()}, endless(),
     FACTS | {"class_names": ["a" * 10**7, "b"]},
     FACTS | {"mean": object()}]
)  # fmt: skip
def test_facts_that_never_end_are_refused_at_once(facts):
    with pytest.raises(ConfigError, match="no plain data, or far too much") as error:
        check_facts(facts, "w.ckpt")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\nhrseg: all is well", "a\u202eb", "a\udcff"])
def test_class_names_that_are_no_words_are_refused(name):
    with pytest.raises(ConfigError, match=r"damaged: class_names"):
        check_facts(FACTS | {"class_names": ["road", name]}, "w.ckpt")


def test_255_classes_of_long_names_in_any_language_are_taken():
    names = [f"{i} 道路 " + "x" * 90 for i in range(255)]
    changed = {"class_names": names, "palette": [[0, 0, 0]] * 255}
    architecture = FACTS["architecture"] | {"num_classes": 255}
    check_facts(FACTS | changed | {"architecture": architecture}, "w.ckpt")
