"""Schema of the config: its options equal the parameters of the parts."""

import json
from inspect import signature

import pytest
import yaml

from hrseg.cli import main
from hrseg.config.loader import load_config, shipped_configs, to_yaml
from hrseg.config.parts import PARTS, model_from_signature
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.schema import (
    BackboneConfig,
    Config,
    DataConfig,
    InferenceConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    json_schema,
)
from hrseg.config.trainer import TrainerConfig
from hrseg.data import DATASETS
from hrseg.data.options import DEFAULTS, OptionsModel
from hrseg.errors import ConfigError
from hrseg.losses import LOSSES
from hrseg.models import create_model
from hrseg.models.hrnet import VARIANTS
from hrseg.models.segmenter import HEADS
from hrseg.training.optimizers import OPTIMIZERS, SCHEDULES


def parameters(function):
    """Return the defaults by parameter, with the shared options of data sets."""
    defaults = {name: item.default for name, item in signature(function).parameters.items()}
    return {**defaults, **DEFAULTS} if defaults.pop("options", None) else defaults


@pytest.mark.parametrize(
    ("section", "table", "ours", "given"),
    [
        ("data", DATASETS, {"name"}, {"seed", "transform"}),
        ("losses", LOSSES, {"name", "on", "weight"}, set()),
        ("optimizer", OPTIMIZERS, {"name"}, {"model"}),
        ("schedule", SCHEDULES, {"name"}, {"optimizer", "steps"}),
    ],
)
def test_options_and_defaults_are_those_of_the_named_part(section, table, ours, given):
    assert set(PARTS[section]) == set(table)
    for name, model in PARTS[section].items():
        defaults = parameters(table[name])
        assert set(model.model_fields) - ours == set(defaults) - given, name
        for key, field in model.model_fields.items():
            if key in defaults and not field.is_required():
                assert field.default == defaults[key], (name, key)


def test_model_and_inference_options_are_parameters_too():
    of_training = {"weights", "freeze_backbone", "activation_checkpointing", "compile"}
    assert set(ModelConfig.model_fields) - of_training == set(parameters(create_model)) - {
        "num_classes", "in_channels",  # of the data set
    }  # fmt: skip
    ours = {"protocol", "scale_report", "details", "window_batch"}
    assert set(InferenceConfig.model_fields) - ours == set(Protocol.model_fields) - {"name"}
    assert InferenceConfig().protocol in PROTOCOLS
    assert set(PARTS["model.backbone"]) == set(VARIANTS)
    assert set(PARTS["model.head"]) == set(HEADS)


def test_the_options_of_data_sets_are_the_same_in_python_and_in_the_config():
    def limits(model, name):
        schema = model.model_json_schema()["properties"][name]
        return {key: value for key, value in schema.items() if key not in ("title", "description")}

    assert set(OptionsModel.model_fields) - {"seed"} == set(DataConfig.model_fields) - {
        "name", "root",
    }  # fmt: skip
    # Paths in Python; both have the same models of augmentations, without a schema in Python.
    others = {"seed", "cache", "manifest", "augment"}
    for name in set(OptionsModel.model_fields) - others:
        assert limits(OptionsModel, name) == limits(DataConfig, name), name


def test_every_option_has_a_description():
    models = {model for table in PARTS.values() for model in table.values()}
    for model in (Config, ModelConfig, InferenceConfig, Protocol, TrainerConfig, *models):
        for name, field in model.model_fields.items():
            assert len(field.description) > 5, (model, name)


def test_the_json_schema_is_current_and_accepts_every_shipped_config(tmp_path, capsys):
    jsonschema = pytest.importorskip("jsonschema")
    shipped = next(iter(shipped_configs().values())).with_name("schema.json")
    assert json.loads(shipped.read_text()) == json_schema(), (
        "hrseg configs --schema configs/schema.json"
    )
    assert main(["configs", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json_schema()
    check = jsonschema.Draft202012Validator(json_schema())
    for path in shipped_configs().values():
        # PyYAML reads a bare `on` as true; editors read YAML 1.2.
        check.validate(yaml.safe_load(path.read_text().replace("on: aux", "'on': aux")))
    start = {
        "name": "x",
        "data": {"name": "camvid", "root": "x"},
        "model": {"backbone": "hrnet_w18"},
    }
    for wrong in ({"data": {"name": "camvid", "rot": "x"}}, {"losses": ["ohm"]}, {"sede": 3}):
        assert not check.is_valid(start | wrong)


class Poly1:
    """A loss of a plugin."""

    def __init__(self, gamma: float = 2.0, classes: list[int] | None = None, net: "object" = None):
        pass


@pytest.fixture
def parts():
    """Restore the tables of parts after a test."""
    before = {section: dict(models) for section, models in PARTS.items()}
    yield
    for section, models in before.items():
        PARTS[section].clear()
        PARTS[section].update(models)


def test_a_part_of_a_plugin_is_checked_by_its_signature(parts):
    PARTS["losses"]["poly1"] = model_from_signature(LossConfig, Poly1, skip=("net",))
    config = load_config("synthetic_tiny", ["losses=[poly1,{name: poly1, gamma: 3, weight: 0.5}]"])
    first, second = config.losses
    assert (first.gamma, second.gamma, second.weight, second.on) == (2.0, 3.0, 0.5, "out")
    assert "gamma: 3.0" in to_yaml(config)
    assert "poly1" in json.dumps(json_schema())
    for wrong, message in {
        "gama: 3": r"losses\[0\].gama: unknown key. Did you mean: gamma\?",
        "gamma: abc": r"losses\[0\].gamma is 'abc'.\nExpected: a number, e.g. 2.0",
        "net: 3": r"losses\[0\].net: unknown key",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_config("synthetic_tiny", [f"losses=[{{name: poly1, {wrong}}}]"])


def test_a_backbone_of_a_plugin_is_a_name_or_has_arguments(parts):
    def plain(width: int, bn_momentum: float = 0.1) -> None: ...

    PARTS["model.backbone"]["plain"] = model_from_signature(BackboneConfig, plain)
    by_name = load_config("synthetic_tiny", ["model.backbone=plain", "model.backbone.width=8"])
    whole = load_config("synthetic_tiny", ["model.backbone={name: plain, width: 8}"])
    assert by_name == whole and whole.model.backbone.width == 8
    with pytest.raises(ConfigError, match=r"model.backbone.width is required"):
        load_config("synthetic_tiny", ["model.backbone=plain"])


def test_a_part_overrides_defaults_of_its_section():
    def part(lr: float = 0.5, betas: tuple[float, float] = (0.9, 0.99)) -> None: ...

    assert model_from_signature(OptimizerConfig, part)(name="part").lr == 0.5


def test_augmentations_are_names_or_have_options_and_are_read_back(tmp_path):
    overrides = ["data.augment=[vflip,blur]", "data.augment[1].limit=7"]
    config = load_config("synthetic_tiny", overrides)
    assert [part.name for part in config.data.augment] == ["vflip", "blur"]
    assert config.data.augment[1].limit == 7
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert load_config(tmp_path / "config.yaml").model_dump() == config.model_dump()
    message = r"data.augment\[0\] is 'rotate9'.\nExpected: a known name. Did you mean: rotate90"
    with pytest.raises(ConfigError, match=message):
        load_config("synthetic_tiny", ["data.augment=[rotate9]"])
