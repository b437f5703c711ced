"""Table of published weights."""

import json

import pytest
import torch

from hrseg.checkpoints.published import RELEASES, STARTS, release_of, start_of
from hrseg.config.loader import load_config, shipped_configs
from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models.classifier import ImageNetClassifier
from hrseg.models.hrnet import VARIANTS, HRNet
from tests.golden_weights import GOLDEN

TIMM = json.loads((GOLDEN / "timm_keys.json").read_text())["models"]


def megabytes(model):
    return sum(t.numel() * t.element_size() for t in model.state_dict().values()) / 1e6


def test_every_backbone_has_imagenet_weights():
    assert {start.backbone for start in STARTS if start.word == "imagenet"} == set(VARIANTS)


@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.repository)
def test_imagenet_weights_have_a_timm_name_and_the_size_of_the_network(start):
    owner, _, name = start.repository.partition("/")
    network, _, training = name.partition(".")
    assert owner == "timm" and network.removesuffix("_ssld") in TIMM
    assert training == ("paddle_in1k" if start.word == "ssld" else "ms_in1k")
    with torch.device("meta"):
        model = ImageNetClassifier(HRNet(start.backbone), conv_bias=start.word == "imagenet")
    assert megabytes(model) == pytest.approx(start.megabytes, abs=0.6)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_a_release_has_a_shipped_config_and_the_size_of_the_network(release):
    name, *overrides = release.config.split()
    assert name in shipped_configs()
    config = load_config(name, overrides)
    assert config.model.head.name == ("ocr" if "_ocr_" in release.name else "fcn")
    classes = {"cs": 19, "lip": 20, "pascal": 59, "cocostuff": 171, "ade20k": 150}
    count = next(number for part, number in classes.items() if f"_{part}_" in release.name)
    with torch.device("meta"):
        model = create_model(config.model.backbone.name, config.model.head.name, count)
    assert megabytes(model) == pytest.approx(release.megabytes, abs=1)
    assert release.url.startswith("https://github.com/") and release.url.endswith(".pth")


def test_the_error_for_missing_weights_of_a_backbone_names_the_other_word():
    message = r"(?s)ssld: no such weights.*hrnet_w32.*hrnet_w18, hrnet_w48.*model.weights=imagenet"
    with pytest.raises(ConfigError, match=message):
        start_of("ssld", "hrnet_w32")


def test_the_error_for_a_misspelt_release_contains_the_nearest_name():
    with pytest.raises(ConfigError, match="hrnet_cs_8090_torch11"):
        release_of("hrnet_cs_8090")
