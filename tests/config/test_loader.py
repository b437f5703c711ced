"""Config loader: files, overrides, interpolation, error messages."""

import copy
import json
from inspect import signature
from pathlib import Path

import pytest
import pytorch_lightning as pl

from hrseg.config.loader import find_config, load_config, shipped_configs, to_dict, to_yaml
from hrseg.config.trainer import OWN_TRAINER_NAMES, TRAINER_ARGUMENTS
from hrseg.errors import ConfigError

MINIMAL = """\
name: mine
data: {name: camvid, root: some/where}
model: {backbone: hrnet_w18}
"""
FOLDER = (
    "name: x\ndata: {{name: folder, root: y, class_names: {}}}\nmodel: {{backbone: hrnet_w18}}\n"
)


@pytest.fixture
def minimal(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_is_printed_and_loaded_unchanged(name, tmp_path):
    overrides = ["data.root=somewhere"]
    printed = to_yaml(load_config(name, overrides))
    copy = tmp_path / "copy.yaml"
    copy.write_text(printed)
    assert to_yaml(load_config(copy)) == printed


@pytest.mark.parametrize("name", shipped_configs())
def test_every_shipped_config_begins_with_its_schema_and_description(name):
    first, second, *_ = shipped_configs()[name].read_text().splitlines()
    assert first == "# yaml-language-server: $schema=schema.json"
    assert second.startswith("# ") and len(second) > 20


def test_a_config_is_found_by_path_by_name_and_without_its_suffix(minimal, monkeypatch):
    monkeypatch.chdir(minimal.parent)
    assert find_config("mine.yaml") == find_config("mine") == Path("mine.yaml")
    assert find_config("camvid_w18_small").name == "camvid_w18_small.yaml"
    minimal.rename("camvid_w18_small.yaml")
    assert load_config("camvid_w18_small").name == "mine"  # not the shipped one
    with pytest.raises(ConfigError, match="Did you mean: camvid_w18_small"):
        find_config("camvid_w18_smal.yaml")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mien.yaml", "Did you mean: mine.yaml?"),
        ("mine.yml", "Did you mean: mine.yaml?"),
        ("photos", "`hrseg init photos`"),
        ("run", "--config run/config.yaml"),
        ("no/x.yaml", "the folder no does not exist"),
        ("utf16.yaml", "save it as UTF-8"),
        ("image.yaml", "it is a PNG image"),
        ("good.ckpt", "--checkpoint good.ckpt"),
    ],
)
def test_an_invalid_config_name_is_reported_with_a_suggestion(minimal, monkeypatch, name, expected):
    folder = minimal.parent
    monkeypatch.chdir(folder)
    for below in ("photos", "run"):
        (folder / below).mkdir()
    (folder / "run/config.yaml").write_text(MINIMAL)
    (folder / "utf16.yaml").write_bytes(MINIMAL.encode("utf-16"))
    (folder / "image.yaml").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "good.ckpt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ConfigError) as error:
        load_config(name)
    assert expected in str(error.value) and name in str(error.value)


def test_overrides_reach_nested_keys_lists_and_named_sections(minimal):
    config = load_config(
        minimal,
        [
            "data.crop_size=[64,96]",
            "optimizer=adamw",
            "optimizer.lr=0.001",
            "losses=[ohem,{name: cross_entropy, weight: 2}]",
            "losses[0].min_kept=7",
            "trainer.devices=2",
        ],
    )
    assert tuple(config.data.crop_size) == (64, 96)
    assert (config.optimizer.lr, config.optimizer.weight_decay) == (0.001, 0.01)
    assert config.losses[0].min_kept == 7
    assert config.losses[1].weight == 2.0
    assert config.trainer == {"devices": 2}


def test_an_override_replaces_a_mapping_and_on_is_a_key(minimal):
    minimal.write_text(
        "name: x\ndata: {name: folder, root: y, id_map: {0: 0, 255: 1}}\n"
        "model: {backbone: hrnet_w18}\noptimizer: {name: adamw, lr: 0.5}\n"
        "losses:\n- {name: cross_entropy, on: aux}\n"
    )
    config = load_config(minimal, ["data.id_map={7: 0, 8: 1}", "optimizer={name: sgd}"])
    assert dict(config.data.id_map) == {7: 0, 8: 1}
    assert config.optimizer.lr == 0.01
    assert config.losses[0].on == "aux"  # YAML 1.1 reads the key as true


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.rot=x", ["data.rot", "unknown key", "Did you mean: root?"]),
        (
            "data.batch_size=four",
            ["data.batch_size", "'four'", "Expected: a whole number from 1 up, e.g. 8"],
        ),
        (
            "data.crop_size=[1,2,3]",
            ["data.crop_size", "two whole numbers", "[256, 256]", "(height, width)"],
        ),
        ("data.scales=[0.5,2.0,0.4]", ["data.scales", "whole steps"]),
        ("trainer.max_epochs=2.5", ["trainer.max_epochs", "whole number"]),
        ("data.batch_size=true", ["data.batch_size is true", "whole number"]),
        ("data.squash=3", ["data.squash is 3", "two whole numbers", "or null"]),
        ("data.crop_size=[64, ", ["data.crop_size", "not a YAML value", "in quotes"]),
        ("name=../../x", ["name", "name of a folder"]),
        ("seed=5000000000", ["seed", "from 0 to 4294967295"]),
        ("lr=0.1", ["lr", "Did you mean: optimizer.lr?"]),
        ("Data.batch_size=4", ["command line: Data", "Did you mean: data?"]),
        ("data.name=camvd", ["data.name", "Did you mean: camvid?"]),
        ("data.flip=2", ["data.flip", "from 0 to 1"]),
        ("model.backbone=hrnet_w19", ["model.backbone", "hrnet_w18"]),
        ("losses=[ohm]", ["losses[0]", "Did you mean: ohem?"]),
        ("losses[0].wight=1", ["losses[0].wight", "Did you mean: weight?"]),
        ("losses=[]", ["losses", "at least one, e.g. [cross_entropy]"]),
        ("losses=dice", ["losses is 'dice'", "a list of names", "Fix: losses=[dice]"]),
        ("inference.scales=0.75,1.0", ["inference.scales", "Fix: inference.scales=[0.75,1.0]"]),
        ("early_stopping_patience=None", ["'None'", "Fix: early_stopping_patience=null"]),
        ("batch_size=4", ["batch_size", "Did you mean: data.batch_size?"]),
        ("epochs=4", ["epochs", "Did you mean: trainer.max_epochs?"]),
        ("model.num_classes=4", ["model.num_classes", "Did you mean: data.class_names?"]),
        ("trainer.max_epoch=3", ["trainer.max_epoch", "Did you mean: max_epochs"]),
        ("trainer.callbacks=3", ["trainer.callbacks", "hrseg sets it itself"]),
        ("trainer.plugins=foo", ["trainer.plugins", "needs Python objects", "remove the key"]),
        ("trainer.barebones=true", ["trainer.barebones", "remove the key"]),
        ("trainer.enable_checkpointing=false", ["enable_checkpointing", "remove the key"]),
        ("trainer.model_registry=x", ["trainer.model_registry", "remove the key"]),
        ("trainer.max_epochs=0", ["trainer.max_epochs is 0", "at least 1"]),
        ("trainer.max_steps=0", ["trainer.max_steps is 0", "at least 1"]),
        ("trainer.check_val_every_n_epoch=0", ["check_val_every_n_epoch is 0", "at least 1"]),
        ("trainer.accumulate_grad_batches=0", ["accumulate_grad_batches is 0", "at least 1"]),
        ("trainer.log_every_n_steps=0", ["log_every_n_steps is 0", "at least 1"]),
        ("trainer.val_check_interval=0", ["val_check_interval is 0", "from 1 up", "e.g. 0.5"]),
        ("trainer.limit_train_batches=0", ["limit_train_batches is 0", "from 1 up"]),
        ("trainer.limit_train_batches=all", ["limit_train_batches is 'all'", "e.g. 10"]),
        ("trainer.limit_val_batches=true", ["limit_val_batches is true", "e.g. 10"]),
        ("trainer.max_time=5", ["trainer.max_time is 5", '"00:12:00:00"']),
        ("trainer.max_time={minutes:1}", ["trainer.max_time", '"00:12:00:00"']),
        ("trainer.deterministic=maybe", ["'maybe'", "true, false or warn"]),
        ("trainer.precision=fp16", ["'fp16'", "16-mixed"]),
        ("trainer.precision=transformer-engine", ["transformer-engine", "16-mixed"]),
        ("trainer.accelerator=tpu", ["'tpu'", "auto, cpu, gpu"]),
        ("inference.flip=maybe", ["inference.flip is 'maybe'", "true or false or null"]),
        ("seed", ["'seed'", "key=value"]),
    ],
)
def test_an_invalid_override_is_reported_with_key_and_fix_in_four_lines(
    minimal, override, expected
):
    minimal.write_text(MINIMAL + "losses: [cross_entropy]\n")
    if "losses[0]" in override:
        minimal.write_text(MINIMAL + "losses: [{name: cross_entropy}]\n")
    with pytest.raises(ConfigError) as error:
        load_config(minimal, [override])
    message = str(error.value)
    assert all(part in message for part in expected), message
    assert len(message.splitlines()) <= 4
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\ndata: {name: camvid, rot: y}\n", ["mine.yaml, line 2", "data.rot"]),
        ("name: x\n\nsede: 3\n", ["mine.yaml, line 3", "sede", "seed"]),
        ("name: [x\nseed: 3\n", ["mine.yaml is not valid YAML", "Line 1", "not closed", "add ]"]),
        ("name: x\ndata\n  root: y\n", ["Line 2: no colon after 'data'", "Fix: `data:`"]),
        ("data:\n  name:x\n  root: y\n", ["Line 2: no space after the colon", "`name: x`"]),
        ("data:\n  name: x\n   root: y\n", ["Line 3 is indented deeper"]),
        ("name: a: b\n", ["Line 1", "quotes"]),
        (MINIMAL.replace("some/where", "'${HOME}/d'"), ["line 2: data.root", "${oc.env:HRSEG_"]),
        (FOLDER.format("[yes, 0123]"), ["line 2: data.class_names is", 'Fix: class_names: ["yes"']),
        (FOLDER.format("[a: b, c]"), ["line 2: data.class_names is", '["a: b", c]']),
        ("name: x\nname: y\n", ["mine.yaml is not valid YAML", "duplicate"]),
        (
            "data: {name: camvid, root: x}\nmodel: hrnet\n",
            ["line 2: model is 'hrnet'", "key: value"],
        ),
        ("name: x\ndata: {name: camvid, root: x}\n", ["model is required"]),
        ("name: x\ndata: {name: camvid, root: x}\nmodel: {}\n", ["line 3: model.backbone is req"]),
        ("name: x\n\tdata: 3\n", ["Line 2", "spaces, not tabs"]),
        ("just text", ["no 'key: value' pairs"]),
        (MINIMAL + "losses:\n- dice\n- {name: ohem, wight: 1}\n", ["line 6: losses[1].wight"]),
        (MINIMAL + "seed: ${no.such}\n", ["seed", "no.such"]),
    ],
)
def test_an_invalid_file_is_reported_with_its_name_and_line(minimal, text, expected):
    minimal.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(minimal)
    assert all(part in str(error.value) for part in expected), str(error.value)
    assert len(str(error.value).splitlines()) <= 4


def test_interpolations_are_saved_unresolved_and_only_hrseg_variables_are_read(
    minimal, monkeypatch
):
    monkeypatch.setenv("HRSEG_DATA", "/secret/place")
    monkeypatch.setenv("OTHER", "secret")
    config = load_config(minimal, ["data.root=${oc.env:HRSEG_DATA}"])
    assert config.data.root == "/secret/place"
    assert "/secret/place" not in to_yaml(config)
    for value in (
        "${${name}:OTHER}",
        "${oc.env:OTHER}",
        "${oc.env:${name}}",
        "${oc.decode:x}",
        "a${oc.env:OTHER}b",
    ):
        with pytest.raises(ConfigError, match="Expected: only"):
            load_config(minimal, [f"data.root={value}"])


@pytest.mark.parametrize(
    "pair",
    [
        "max_epochs=-1", "max_time=00:12:00:00", "max_time={minutes: 5}", "limit_val_batches=0",
        "limit_train_batches=0.5", "limit_val_batches=1.0", "val_check_interval=500",
        "deterministic=warn", "precision=16", "precision=bf16-mixed", "accelerator=gpu",
        "enable_checkpointing=true", "barebones=false", "plugins=null", "max_steps=null",
    ],
)  # fmt: skip
def test_valid_values_of_the_trainer_are_accepted(minimal, pair):
    key, _, _ = pair.partition("=")
    assert key in load_config(minimal, [f"trainer.{pair}"]).trainer


def test_the_trainer_arguments_are_those_of_lightning():
    parameters = set(signature(pl.Trainer.__init__).parameters) - {"self"}
    assert set(TRAINER_ARGUMENTS) | set(OWN_TRAINER_NAMES) == parameters


def test_an_invalid_protocol_is_reported_with_its_file_and_line(tmp_path):
    path = tmp_path / "x.yaml"
    text = find_config("camvid_w18").read_text()
    path.write_text(text.replace("{protocol: plain,", "{protocol: oficial_lip,"))
    line = 1 + path.read_text()[: path.read_text().index("oficial_lip")].count("\n")
    with pytest.raises(ConfigError, match=rf"x.yaml, line {line}: inference.protocol is 'ofi"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"^command line: inference.window is \[520\].\n.*width"):
        load_config("camvid_w18", ["inference.window=[520]"])
    with pytest.raises(ConfigError, match=r"^command line: inference.stride .*\n.*window, \[64"):
        load_config("camvid_w18", ["inference.window=[64,64]", "inference.stride=[65,1]"])
    config = load_config("camvid_w18", ["inference.protocol=official_lip"])
    assert config.inference.resize is None


@pytest.mark.parametrize(
    "section", ["optimizer: ${oc.env:SECRET_OF_MINE}", "losses: ['${oc.env:SECRET_OF_MINE}']",
                "losses: ${oc.select:x,'${oc.env:SECRET_OF_MINE}'}"]
)  # fmt: skip
def test_a_secret_as_a_section_is_refused_before_it_is_read(section, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_OF_MINE", "7f3e9a")
    (tmp_path / "c.yaml").write_text(f"name: a\n{section}\n")
    with pytest.raises(ConfigError, match="is not allowed") as error:
        load_config(tmp_path / "c.yaml")
    assert "7f3e9a" not in str(error.value)
    with pytest.raises(ConfigError, match="is not allowed"):
        load_config("synthetic_tiny", [section.replace(": ", "=", 1)])


def test_a_section_from_the_environment_is_saved_unresolved(tmp_path, monkeypatch):
    monkeypatch.setenv("HRSEG_CACHE", "/from/the/environment")
    overrides = ["data.cache=${oc.env:HRSEG_CACHE}", "inference.window=${data.crop_size}"]
    config = load_config("synthetic_tiny", overrides)
    assert to_dict(config.data)["cache"] == "/from/the/environment"
    assert config.inference.window == config.data.crop_size
    assert "cache: ${oc.env:HRSEG_CACHE}\n" in to_yaml(config)
    changed = copy.deepcopy(config)
    changed.data.cache = "elsewhere"
    assert "cache: elsewhere\n" in to_yaml(changed) and changed != config
    assert "window: ${data.crop_size}\n" in to_yaml(changed)


@pytest.mark.parametrize("key", ["optimizer", "data.batch_size", "inference.window"])
def test_an_invalid_value_of_the_environment_is_not_printed(key, monkeypatch):
    monkeypatch.setenv("HRSEG_SECRET", "of_the_environment")
    with pytest.raises(ConfigError, match=rf"{key} is '\${{oc.env:HRSEG_SECRET}}'") as error:
        load_config("synthetic_tiny", [f"{key}=${{oc.env:HRSEG_SECRET}}"])
    assert "of_the_environment" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 100_000, "a: " + "[" * 100 + "]" * 100, f"a: {'9' * 5000}"]
)
def test_yaml_that_crashes_parsers_is_refused(text, tmp_path):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError, match="is not valid YAML"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("name", ["a\x1bb", "a\u202egnp", "a" * 201, "a\nb"])
def test_an_invalid_folder_name_is_refused(name):
    with pytest.raises(ConfigError, match="name of a folder"):
        load_config("synthetic_tiny", [f"name={json.dumps(name)}"])
