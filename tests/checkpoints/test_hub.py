"""Weights by name, with the real client of the Hub and a server on this machine."""

import hashlib
import json
import pickle

import pytest
import torch
from safetensors.torch import save, save_file

from hrseg.checkpoints import hub as downloads
from hrseg.checkpoints.hub import fetch, is_remote
from hrseg.checkpoints.loading import compare, load_model, load_weights, to_official
from hrseg.checkpoints.published import STARTS
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import GOLDEN, official_weights
from tests.weight_files import imagenet

OFFICIAL = official_weights("w18_small_v1")
TIMM = {name: tensor.clone() for name, tensor in imagenet(OFFICIAL).items()}
SMALL = "timm/hrnet_w18_small.ms_in1k"


@pytest.fixture
def timm(hub):
    """Return a local Hub server with the ImageNet file of W18-small-v1."""
    hub.repos[SMALL] = {"model.safetensors": save(TIMM)}
    return hub


def gets(server):
    return [path for method, path in server.requests if method == "GET"]


@pytest.mark.parametrize("name", ["imagenet", SMALL])
def test_a_model_is_initialised_from_imagenet_by_name(timm, name):
    model = create_model("hrnet_w18_small_v1")
    report = load_weights(model, name, purpose="initialise")
    assert report.family == "timm" and not any("nearest" in note for note in report.notes)
    assert torch.equal(model.backbone.conv1.weight, OFFICIAL["conv1.weight"])


def test_a_cached_file_needs_no_request(timm):
    first = fetch("imagenet", "hrnet_w18_small_v1")
    count = len(timm.requests)
    assert fetch("imagenet", "hrnet_w18_small_v1") == first and len(timm.requests) == count


def test_a_broken_download_is_resumed(timm):
    timm.break_after = 2**24
    fetch(SMALL)
    assert timm.resumed and 0 < timm.resumed[0] <= 2**24
    assert hashlib.sha256(fetch(SMALL).read_bytes()).digest() == hashlib.sha256(save(TIMM)).digest()


def test_a_wrong_checksum_is_refused(timm):
    timm.corrupt(SMALL, "model.safetensors")
    with pytest.raises(ConfigError, match=r"(?s)has the sha256 [0-9a-f]{64}.*Expected: .*Fix: rem"):
        fetch(SMALL)


def test_a_missing_or_private_repository_is_named(timm):
    timm.repos["me/secret"] = {"model.safetensors": save(TIMM)}
    timm.tokens["me/secret"] = "hf_right"
    for name in ("hf:me/other", "hf:me/secret"):
        with pytest.raises(ConfigError, match=r"(?s)was not found .*, or is private.*HF_TOKEN"):
            fetch(name)


def test_a_private_repository_is_read_with_its_token(timm, monkeypatch):
    timm.repos["me/secret"] = {"model.safetensors": save(TIMM)}
    timm.tokens["me/secret"] = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    assert fetch("hf:me/secret").is_file()


def test_an_invalid_token_is_named_as_the_cause(timm, monkeypatch):
    timm.repos["me/secret"] = {"model.safetensors": save(TIMM)}
    timm.tokens["me/secret"] = "hf_right"
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(ConfigError, match=r"(refused the token|or is private)(.|\n)*HF_TOKEN"):
        fetch("hf:me/secret")


def test_a_missing_revision_or_file_is_named(timm):
    timm.repos["me/empty"] = {"README.md": b"nothing"}
    with pytest.raises(ConfigError, match=r"has no revision v9.*\n.*Fix: leave out"):
        fetch(f"hf:{SMALL}@v9")
    with pytest.raises(ConfigError, match=r"has no model.safetensors"):
        fetch("hf:me/empty")


@pytest.mark.parametrize("name", ["hf:", "hf:one", "hf:a/b/c", "hf:../x/y", "hf:a b/c"])
def test_invalid_names_are_refused_without_a_request(timm, name):
    with pytest.raises(ConfigError, match="is not the name of a repository"):
        fetch(name)
    assert timm.requests == []


def test_pickle_files_of_a_repository_are_never_read(timm):
    class Evil:
        def __reduce__(self):
            return print, ("code was run",)

    timm.repos["me/evil"] = {"pytorch_model.bin": pickle.dumps(Evil()), "../model.safetensors": b""}
    with pytest.raises(ConfigError, match="pickle files are not read"):
        load_model("hf:me/evil")
    timm.repos["me/evil"]["model.safetensors"] = pickle.dumps(Evil())
    with pytest.raises(ConfigError, match="damaged or not a safetensors file"):
        load_model("hf:me/evil")
    assert all("pytorch_model.bin" not in path for path in gets(timm))


def test_the_error_without_a_connection_contains_the_fix(timm, monkeypatch):
    timm.close()
    with pytest.raises(ConfigError) as error:
        fetch("imagenet", "hrnet_w18_small_v1")
    lines = str(error.value).splitlines()
    assert len(lines) == 4 and SMALL in lines[0] and "model.safetensors" in lines[0]
    assert str(downloads.cache_of(SMALL)) in lines[1]
    assert "model.weights=null" in lines[2] and "model.weights=PATH" in lines[3]


def test_without_a_connection_a_cached_file_is_used(timm, capsys):
    timm.repos["me/own"] = {"model.safetensors": save(TIMM)}
    first = fetch(SMALL), fetch("hf:me/own")
    timm.close()
    assert (fetch(SMALL), fetch("hf:me/own")) == first
    assert "hf:me/own is the cached revision" in capsys.readouterr().out


def test_a_new_revision_of_a_model_is_downloaded(timm):
    timm.repos["me/own"] = {"model.safetensors": save({"a": torch.zeros(1)})}
    old = fetch("hf:me/own").read_bytes()
    timm.repos["me/own"] = {"model.safetensors": save({"a": torch.ones(1)})}
    assert fetch("hf:me/own").read_bytes() != old


def test_offline_mode_uses_the_cache_only(timm, monkeypatch):
    fetch(SMALL)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    count = len(timm.requests)
    assert fetch(SMALL).is_file()
    with pytest.raises(ConfigError, match="HF_HUB_OFFLINE is set"):
        fetch("timm/hrnet_w48.ms_in1k")
    assert len(timm.requests) == count


def test_a_released_checkpoint_is_downloaded_once(timm, tmp_path, monkeypatch):
    timm.repos["files/release"] = {"hrnet_cs_8090_torch11.pth": b"weights"}
    address = f"{timm.url}/files/release/resolve/main"
    monkeypatch.setattr("hrseg.checkpoints.published.RELEASE_URL", address)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = fetch("hub:hrnet_cs_8090_torch11")
    assert path.read_bytes() == b"weights" and path.name == "hrnet_cs_8090_torch11.pth"
    timm.close()
    assert fetch("hub:hrnet_cs_8090_torch11") == path
    with pytest.raises(
        ConfigError, match=r"(?s)could not be downloaded.*Expected: .*or the file as"
    ):
        fetch("hub:hrnet_lip_5583_torch04")


def test_a_local_file_takes_precedence_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "w.pth").write_bytes(b"")
    assert not is_remote("timm/w.pth") and not is_remote("weights/w.pth")
    assert all(is_remote(name) for name in ("imagenet", "ssld", SMALL, "hf:me/own", "hub:x"))


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
            model = create_model(f"hrnet_{variant}")
            state = imagenet(to_official(model))
        lines = "\n".join(f"{key} {list(state[key].shape)}" for key in sorted(state))
        assert len(state) == expected["tensors"]
        assert hashlib.sha256(lines.encode()).hexdigest() == expected["sha256"], name
        _, report = compare(model, state, "timm", purpose="initialise")
        assert report.unexpected == report.mismatched == []
        assert not any(key.startswith("backbone.") for key in report.missing)


def test_every_start_is_found_by_its_word():
    for start in STARTS:
        assert downloads.resolve(start.word, start.backbone) == start.repository
