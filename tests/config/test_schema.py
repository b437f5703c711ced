"""Config fields are the parameters of what they build: a sibling cannot fall out of step."""

from dataclasses import MISSING, fields
from inspect import signature
from typing import get_args

import pytest

from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.schema import SECTIONS, Backbone, Config, InferenceConfig, ModelConfig
from hrseg.data import DATASETS
from hrseg.losses import LOSSES
from hrseg.models import create_model
from hrseg.models.hrnet import VARIANTS
from hrseg.models.segmenter import HEADS
from hrseg.training.optimizers import OPTIMIZERS, SCHEDULES


def names(schema):
    return {field.name for field in fields(schema)}


@pytest.mark.parametrize(
    ("section", "table", "ours", "given"),
    [
        ("data", DATASETS, {"name"}, {"seed"}),
        ("losses", LOSSES, {"name", "on", "weight"}, set()),
        ("optimizer", OPTIMIZERS, {"name"}, {"model"}),
        ("schedule", SCHEDULES, {"name"}, {"optimizer", "steps"}),
    ],
)
def test_fields_are_the_parameters_of_what_the_name_builds(section, table, ours, given):
    assert set(SECTIONS[section]) == set(table)
    for name, schema in SECTIONS[section].items():
        assert names(schema) - ours == set(signature(table[name]).parameters) - given, name


def default_of(field):
    return field.default_factory() if field.default is MISSING else field.default


@pytest.mark.parametrize(
    ("section", "table"),
    [("data", DATASETS), ("losses", LOSSES), ("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)],
)
def test_defaults_of_the_schema_are_those_of_the_constructors(section, table):
    for name, schema in SECTIONS[section].items():
        parameters = signature(table[name]).parameters
        for field in fields(schema):
            default = default_of(field)
            if field.name in parameters and default != "???":
                expected = parameters[field.name].default
                expected = list(expected) if isinstance(default, list) else expected
                assert default == expected, (name, field.name)


def test_model_and_inference_fields_are_parameters_too():
    of_training = {"weights", "freeze_backbone", "activation_checkpointing", "compile"}
    assert names(ModelConfig) - of_training == set(signature(create_model).parameters) - {
        "num_classes"
    }
    ours = {"protocol", "scale_report", "details", "window_batch"}
    assert names(InferenceConfig) - ours == set(names(Protocol)) - {"name"}
    assert InferenceConfig().protocol in PROTOCOLS
    assert set(get_args(Backbone)) == set(VARIANTS)
    assert set(SECTIONS["model.head"]) == set(HEADS)


def test_every_field_has_its_sentence():
    for schema in (Config, *(s for table in SECTIONS.values() for s in table.values())):
        for field in fields(schema):
            assert len(field.metadata["help"]) > 5, (schema, field.name)
