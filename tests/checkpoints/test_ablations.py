"""Weights of networks with other fusions and outputs: loading, names, metadata."""

import pytest
import torch

from hrseg.checkpoints.loading import load_weights, to_official
from hrseg.checkpoints.mmseg import RESTORE, to_mmseg
from hrseg.checkpoints.network_names import describe
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import official_weights
from tests.weight_files import imagenet

VARIANT = "hrnet_w18_small_v2"  # 1, 3 and 2 modules in the stages 2, 3 and 4
OFFICIAL = official_weights("w18_small_v2")
IMAGENET = imagenet(OFFICIAL)
COMBINATIONS = [
    ("all", "v1"),
    ("all", "stream_2"),
    ("stages", "v2"),
    ("stages", "stream_3"),
    ("final", "v1h"),
    ("final", "stream_4"),
]


@pytest.mark.parametrize(("exchange", "output"), COMBINATIONS)
def test_imagenet_weights_initialise_other_fusions_and_outputs(exchange, output):
    model = create_model(VARIANT, exchange=exchange, output=output)
    report = load_weights(model, IMAGENET, purpose="initialise")
    assert report.mismatched == report.unexpected == []
    missing = {name.split(".")[1] for name in report.missing if name.startswith("backbone.")}
    assert missing == ({"widen"} if output == "v1h" else set())
    loaded = to_official(model)
    names = [name for name in loaded if not name.startswith(("widen", "last_layer"))]
    assert all(torch.equal(loaded[name], IMAGENET[name]) for name in names)
    notes = "\n".join(report.notes)
    assert (f"exchange {exchange}: " in notes) == (exchange != "all")
    assert (f"output {output}: " in notes) == (output != "v2")


def test_the_report_counts_the_fusions_that_are_not_used():
    model = create_model(VARIANT, exchange="final")
    report = load_weights(model, IMAGENET, purpose="initialise")
    # Fusions of 2, 3 and 4 streams have 2, 6 and 12 paths up or down. A path has 6 tensors per
    # convolution and norm, and a path down over n strides has n of them.
    tensors = 6 * (2 + 3 * (3 + 4) + (6 + 10))
    assert f"exchange final: {tensors} tensors of other fusions not used" in report.notes


@pytest.mark.parametrize("exchange", ["stages", "final"])
def test_weights_of_all_fusions_are_refused_for_the_evaluation_of_fewer(exchange):
    with pytest.raises(ConfigError) as error:
        load_weights(create_model(VARIANT, exchange=exchange), OFFICIAL)
    message = str(error.value)
    assert "an official HRNetV2-W18-small-v2 with 19 classes.\n" in message
    assert f"Expected: HRNetV2-W18-small-v2 with 19 classes, exchange {exchange}.\n" in message
    assert "unexpected (backbone.stage" in message and message.count("\n") == 3


@pytest.mark.parametrize("purpose", ["evaluate", "initialise"])
def test_missing_fusions_are_refused(purpose):
    state = create_model(VARIANT, exchange="final").state_dict()
    with pytest.raises(ConfigError, match=r"missing .backbone.stage2.0.fuse_layers"):
        load_weights(create_model(VARIANT), state, purpose=purpose)


@pytest.mark.parametrize(("exchange", "output"), COMBINATIONS[2:5])
def test_weights_return_under_the_names_of_other_families(exchange, output):
    torch.manual_seed(0)
    model, other = (create_model(VARIANT, exchange=exchange, output=output) for _ in range(2))
    renamed, originals = to_mmseg(model.state_dict())
    for file in (to_official(model), {"state_dict": renamed, RESTORE: originals}):
        report = load_weights(other, file)
        assert report.missing == report.unexpected == report.mismatched == []
        loaded = other.state_dict()
        assert all(torch.equal(t, loaded[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("exchange", "output", "name"),
    [
        ("all", "v1h", "HRNetV1h-W18-small-v2 with 19 classes"),
        ("stages", "v1", "HRNetV1-W18-small-v2 with 19 classes, exchange stages"),
        ("all", "stream_3", "HRNet-W18-small-v2 with 19 classes, output stream_3"),
        ("final", "stream_4",
         "HRNet-W18-small-v2 with 19 classes, output stream_4, exchange final"),
    ],
)  # fmt: skip
def test_the_name_of_a_network_contains_its_switches(exchange, output, name):
    assert describe(create_model(VARIANT, exchange=exchange, output=output).state_dict()) == name


def test_the_architecture_has_the_exchange_only_if_it_is_not_the_default():
    assert "exchange" not in create_model(VARIANT).architecture
    model = create_model(VARIANT, exchange="final", output="stream_3")
    assert (model.architecture["exchange"], model.architecture["output"]) == ("final", "stream_3")
    again = create_model(**model.architecture)
    assert again.load_state_dict(model.state_dict()).missing_keys == []
