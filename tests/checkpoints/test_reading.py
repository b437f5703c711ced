import os
import pickle
import resource
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import hrseg
from hrseg.checkpoints import reading as weightfile
from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint, write_safetensors
from hrseg.errors import ConfigError
from hrseg.models import create_model
from tests.golden_weights import official_weights
from tests.hostile.weights import Call

OFFICIAL = official_weights("w18_small_v1")


def refusal(path):
    with pytest.raises(ConfigError) as error:
        read_checkpoint(path)
    return str(error.value)


def test_the_error_for_a_damaged_checkpoint_lists_intact_files_in_its_folder(tmp_path):
    torch.save(OFFICIAL, tmp_path / "best.ckpt")
    (tmp_path / "last.ckpt").write_bytes((tmp_path / "best.ckpt").read_bytes()[:-1])
    with pytest.raises(
        ConfigError, match=r"damaged(.|\n)*Intact files in the same folder: best.ckpt"
    ):
        load_weights(create_model("hrnet_w18_small_v1"), tmp_path / "last.ckpt")


def test_a_zip_bomb_is_refused_before_decompression(tmp_path):
    torch.save({"conv1.weight": torch.zeros(4, 4)}, tmp_path / "seed.pth")
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(tmp_path / "seed.pth") as seed, zipfile.ZipFile(path, "w") as file:
        for entry in seed.infolist():
            data = entry.filename.endswith("data/0")
            content = bytes(2**29) if data else seed.read(entry)
            file.writestr(entry.filename, content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    del content
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "w.pth is damaged, truncated, or not a checkpoint" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_overlapping_zip_records_are_refused_before_reading(tmp_path):
    torch.save(OFFICIAL, tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth", "a") as file:
        largest = max(file.infolist(), key=lambda entry: entry.file_size)
        file.filelist += [largest] * 400
        file.comment = b"forces a new directory"
    assert "w.pth is damaged" in refusal(tmp_path / "w.pth")


def test_a_file_above_the_limit_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(weightfile, "MAX_BYTES", 1000)
    torch.save(OFFICIAL, tmp_path / "w.pth")
    assert "Weights of an HRNet have less than 1 GiB" in refusal(tmp_path / "w.pth")


@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
@pytest.mark.parametrize("load", [read_checkpoint, hrseg.load])
def test_code_in_a_file_is_refused_and_never_runs(load, form, tmp_path):
    path, created = tmp_path / "w.pth", tmp_path / "ran"
    payload = Call(os.mkdir, str(created))
    if form == "pickle":
        path.write_bytes(pickle.dumps(payload, protocol=2))
    else:
        torch.save({"hrseg": payload}, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ConfigError, match=r"more than tensors and plain data: posix\.mkdir"):
        load(path)
    assert not created.exists()


def test_safetensors_contain_the_weights_and_the_metadata(tmp_path):
    metadata = {"class_names": ["road", "sky"], "protocol": {"scales": [1.0]}}
    state = {"a.weight": torch.randn(3, 4).t(), "b": torch.tensor(3)}
    write_safetensors(tmp_path / "w.safetensors", state, metadata)
    content = read_checkpoint(tmp_path / "w.safetensors")
    assert content["hrseg"] == metadata
    assert all(torch.equal(content["state_dict"][name], state[name]) for name in state)
    write_safetensors(tmp_path / "w.safetensors", OFFICIAL, {})
    assert "hrseg" not in read_checkpoint(tmp_path / "w.safetensors")
    report = load_weights(create_model("hrnet_w18_small_v1"), tmp_path / "w.safetensors")
    assert len(report.matched) == len(OFFICIAL)


@pytest.mark.parametrize(
    ("tensor", "word"),
    [
        (torch.eye(3).to_sparse(), "sparse_coo"),
        (torch.empty(3, device="meta"), "meta"),
        (torch.zeros(1).expand(16, 2**20), "strided"),
    ],
    ids=["sparse", "meta", "larger than its storage"],
)
@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}])
def test_sparse_and_incompletely_stored_tensors_are_refused(tensor, word, wrap, tmp_path):
    torch.save(wrap({"conv1.weight": tensor}), tmp_path / "w.pth")
    message = refusal(tmp_path / "w.pth")
    assert "w.pth: conv1.weight is stored as" in message and word in message


@pytest.mark.parametrize("metadata", [{"hrseg": "{"}, None], ids=["invalid JSON", "invalid header"])
def test_a_damaged_safetensors_file_is_refused(metadata, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.ones(1)}, path, metadata)
    if metadata is None:
        path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert "w.safetensors is damaged" in refusal(path)


def test_a_pipe_and_a_device_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "device.pth").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        assert "a pipe or a device, not a file" in refusal(path)
