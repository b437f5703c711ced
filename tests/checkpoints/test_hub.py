import hashlib
import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from hrseg.checkpoints import hub
from hrseg.checkpoints.loading import compare, load_weights
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import GOLDEN, official_keys, official_weights
from tests.weight_files import imagenet

OFFICIAL = official_weights("w18_small_v1")
TIMM = {name: tensor.clone() for name, tensor in imagenet(OFFICIAL).items()}


def replace_download(monkeypatch, download):
    """Replace `huggingface_hub.hf_hub_download`, because the tests have no network."""
    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_a_timm_name_is_downloaded_and_read_as_a_timm_file(monkeypatch, tmp_path):
    save_file(TIMM, tmp_path / "model.safetensors")
    calls = []
    replace_download(monkeypatch, lambda *names: calls.append(names) or str(tmp_path / names[1]))
    model = create_model("hrnet_w18_small_v1")
    report = load_weights(model, "timm/hrnet_w18_small.ms_in1k", purpose="initialise")
    assert calls == [("timm/hrnet_w18_small.ms_in1k", "model.safetensors")]
    assert report.family == "timm" and any("nearest neighbour" in note for note in report.notes)
    assert torch.equal(model.backbone.conv1.weight, OFFICIAL["conv1.weight"])


def test_the_error_names_a_missing_network_or_package(monkeypatch):
    def download(repository, file):
        raise ConnectionError("Name or service not known")

    replace_download(monkeypatch, download)
    with pytest.raises(ConfigError, match=r"could not be downloaded \(ConnectionError\): Name or"):
        hub.fetch("timm/hrnet_w18.ms_in1k")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match="pip install huggingface_hub"):
        hub.fetch("timm/hrnet_w18.ms_in1k")


def test_a_local_file_takes_precedence_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "w.pth").write_bytes(b"")
    assert not hub.is_on_hub("timm/w.pth")
    assert hub.is_on_hub("timm/hrnet_w18.ms_in1k") and not hub.is_on_hub("weights/w.pth")


@pytest.mark.parametrize("source", ["auto", "timm"])
def test_a_downloaded_file_is_recognised_as_a_timm_file(tmp_path, source):
    save_file(TIMM, tmp_path / "model.safetensors")
    model = create_model("hrnet_w18_small_v1")
    report = load_weights(model, tmp_path / "model.safetensors", source, purpose="initialise")
    assert report.family == "timm"


def test_the_backbone_matches_timms_list_of_tensors():
    models = json.loads((GOLDEN / "timm_keys.json").read_text())["models"]
    for name, expected in models.items():
        variant = {"hrnet_w18_small": "w18_small_v1"}.get(name, name.removeprefix("hrnet_"))
        with torch.device("meta"):
            official = {key: torch.empty(shape) for key, shape in official_keys(variant).items()}
            state = imagenet(official)
            model = create_model(f"hrnet_{variant}")
        lines = "\n".join(f"{key} {list(state[key].shape)}" for key in sorted(state))
        assert len(state) == expected["tensors"]
        assert hashlib.sha256(lines.encode()).hexdigest() == expected["sha256"], name
        _, report = compare(model, state, "timm", purpose="initialise")
        assert report.unexpected == report.mismatched == []
        assert not any(key.startswith("backbone.") for key in report.missing)
