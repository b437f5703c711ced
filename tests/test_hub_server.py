"""Behaviour of huggingface_hub that hrseg depends on, shown by its real client and HubServer."""

import hashlib
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationDelete,
    HfApi,
    constants,
    errors,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    model_info,
    snapshot_download,
    try_to_load_from_cache,
)

WEIGHTS = bytes(range(256)) * 16
CONFIG = b"model: {backbone: hrnet_w18}\n"
REPOSITORY, TOKEN = "me/scenes", "hf_mine"


@pytest.fixture
def server(hub):
    """Return the server with a model of one LFS file and one regular file."""
    hub.repos[REPOSITORY] = {"model.safetensors": WEIGHTS, "config.yaml": CONFIG}
    return hub


@pytest.fixture
def no_wait(monkeypatch):
    """Skip the waiting time between the client's attempts; return the list of these times."""
    times = []
    monkeypatch.setattr("time.sleep", times.append)
    return times


def count(server, method, end):
    return sum(m == method and path.endswith(end) for m, path in server.requests)


def test_a_download_is_cached_by_the_etag_and_read_without_a_second_get(server):
    path = Path(hf_hub_download(REPOSITORY, "model.safetensors"))
    assert path.read_bytes() == WEIGHTS and path.resolve().parent.name == "blobs"
    # An LFS file's blob is named by its sha256, a regular file's blob by git's sha1.
    assert path.resolve().name == hashlib.sha256(WEIGHTS).hexdigest()
    config = Path(hf_hub_download(REPOSITORY, "config.yaml"))
    blob = b"blob %d\0" % len(CONFIG) + CONFIG
    assert config.resolve().name == hashlib.sha1(blob).hexdigest()
    commit = server.commit_of(REPOSITORY)
    cache = Path(constants.HF_HUB_CACHE) / "models--me--scenes"
    assert path == cache / "snapshots" / commit / "model.safetensors"
    assert (cache / "refs" / "main").read_text() == commit
    assert Path(hf_hub_download(REPOSITORY, "model.safetensors")) == path
    assert count(server, "GET", "model.safetensors") == 1
    assert count(server, "HEAD", "model.safetensors") == 2
    # A commit hash needs no request at all.
    before = len(server.requests)
    assert Path(hf_hub_download(REPOSITORY, "model.safetensors", revision=commit)) == path
    assert len(server.requests) == before


def test_a_broken_connection_is_resumed_at_the_last_full_chunk(server, no_wait, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # 10 MiB; the rest is lost
    server.break_after = 2500
    path = hf_hub_download(REPOSITORY, "model.safetensors")
    assert server.resumed == [2000] and no_wait == [1]
    assert Path(path).read_bytes() == WEIGHTS


def test_a_download_that_fails_leaves_no_file(server, no_wait, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.setattr("tests.hub_server._Handler._resolve", break_always(server))
    with pytest.raises(httpx2.RemoteProtocolError):
        hf_hub_download(REPOSITORY, "model.safetensors")
    # So a later call starts at the first byte: only attempts of one call are resumed.
    assert list((Path(constants.HF_HUB_CACHE) / "models--me--scenes" / "blobs").iterdir()) == []
    assert count(server, "GET", "model.safetensors") == 6 and no_wait == [1] * 5


def break_always(server):
    from tests.hub_server import _Handler

    resolve = _Handler._resolve

    def broken(self, *arguments):
        server.break_after = 10
        resolve(self, *arguments)

    return broken


def test_missing_names_have_an_exception_each(server):
    with pytest.raises(errors.RepositoryNotFoundError):
        hf_hub_download("me/other", "model.safetensors")
    with pytest.raises(errors.RevisionNotFoundError):
        hf_hub_download(REPOSITORY, "model.safetensors", revision="v9")
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download(REPOSITORY, "missing.yaml")
    with pytest.raises(errors.RepositoryNotFoundError):
        snapshot_download("me/other")
    with pytest.raises(errors.RevisionNotFoundError):
        snapshot_download(REPOSITORY, revision="v9")


def test_a_private_repository_needs_its_token(server, monkeypatch):
    server.tokens[REPOSITORY] = TOKEN
    with pytest.raises(errors.RepositoryNotFoundError) as private:
        hf_hub_download(REPOSITORY, "config.yaml")
    assert private.value.response.status_code == 401
    assert not isinstance(private.value, errors.GatedRepoError)
    server.gated.add(REPOSITORY)
    with pytest.raises(errors.GatedRepoError):
        hf_hub_download(REPOSITORY, "config.yaml")
    with pytest.raises(errors.HfHubHTTPError) as invalid:
        hf_hub_download(REPOSITORY, "config.yaml", token="hf_wrong")
    assert not isinstance(invalid.value, errors.RepositoryNotFoundError)
    assert invalid.value.response.status_code == 401
    assert hf_hub_download(REPOSITORY, "config.yaml", token=TOKEN)
    assert HfApi(token=TOKEN).whoami()["name"] == "me"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert HfApi().model_info(REPOSITORY).private


def test_a_stopped_server_is_a_missing_local_entry_after_six_attempts(server, no_wait):
    cached = hf_hub_download(REPOSITORY, "config.yaml")
    server.close()
    assert hf_hub_download(REPOSITORY, "config.yaml") == cached and no_wait == []
    with pytest.raises(errors.LocalEntryNotFoundError) as error:
        hf_hub_download(REPOSITORY, "model.safetensors")
    assert isinstance(error.value.__cause__, httpx2.ConnectError)
    assert no_wait == [1, 2, 4, 8, 8]  # 23 s, also if connections are refused at once
    no_wait.clear()
    with pytest.raises(httpx2.ConnectError):  # the check without attempts and without waiting
        get_hf_file_metadata(hf_hub_url(REPOSITORY, "model.safetensors"), timeout=1)
    with pytest.raises(httpx2.ConnectError):
        HfApi().model_info(REPOSITORY, timeout=1)
    with pytest.raises(errors.LocalEntryNotFoundError):
        hf_hub_download(REPOSITORY, "model.safetensors", local_files_only=True)
    assert no_wait == []


def test_without_a_server_a_snapshot_is_checked_by_its_cached_tree_only(server):
    config = Path(hf_hub_download(REPOSITORY, "config.yaml"))
    server.repos["me/other"] = dict(server.repos[REPOSITORY])
    snapshot_download("me/other", allow_patterns="config.yaml")  # writes the tree
    server.close()
    with pytest.raises(errors.IncompleteSnapshotError):
        snapshot_download("me/other")
    assert Path(snapshot_download(REPOSITORY)) == config.parent  # without model.safetensors


def test_offline_mode_reads_the_cache_and_sends_nothing(server, monkeypatch):
    cached = hf_hub_download(REPOSITORY, "config.yaml")
    before = len(server.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hf_hub_download(REPOSITORY, "config.yaml") == cached
    with pytest.raises(errors.LocalEntryNotFoundError) as error:
        hf_hub_download(REPOSITORY, "model.safetensors")
    assert isinstance(error.value.__cause__, errors.OfflineModeIsEnabled)
    with pytest.raises(errors.OfflineModeIsEnabled):
        HfApi().model_info(REPOSITORY)
    assert len(server.requests) == before


def test_an_uploaded_folder_comes_back_with_the_same_bytes(server, tmp_path):
    server.tokens["me"] = TOKEN
    api = HfApi(token=TOKEN)
    card = b"---\nlicense: apache-2.0\n---\n# New\n"
    files = {"model.safetensors": WEIGHTS, "README.md": card, "pictures/a.png": b"\x89PNG"}
    for name, content in files.items():
        (tmp_path / "new" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "new" / name).write_bytes(content)
    assert api.create_repo("me/new", private=True) == f"{server.url}/me/new"
    with pytest.raises(errors.HfHubHTTPError, match="409"):
        api.create_repo("me/new")
    api.create_repo("me/new", private=True, exist_ok=True)
    commit = api.upload_folder(repo_id="me/new", folder_path=tmp_path / "new")
    assert server.repos["me/new"] == files and commit.oid == server.commit_of("me/new")
    assert ("POST", "/lfs/verify") in server.requests
    assert set(api.list_repo_files("me/new")) == set(files)
    snapshot = Path(snapshot_download("me/new", token=TOKEN))
    assert {name: (snapshot / name).read_bytes() for name in files} == files
    # A second upload of the same files sends no content and no commit.
    before = server.requests.count(("POST", "/api/models/me/new/commit/main"))
    assert api.upload_folder(repo_id="me/new", folder_path=tmp_path / "new").oid == commit.oid
    assert server.requests.count(("POST", "/api/models/me/new/commit/main")) == before
    removal = [CommitOperationDelete("pictures/a.png")]
    api.create_commit("me/new", removal, commit_message="Remove the picture")
    assert "pictures/a.png" not in server.repos["me/new"]


def test_uploads_without_the_right_token_are_refused(server):
    server.tokens["me"] = TOKEN
    for token in (False, "hf_wrong"):
        with pytest.raises(errors.HfHubHTTPError) as error:
            HfApi(token=token).create_repo("me/new")
        assert error.value.response.status_code == 401
        with pytest.raises(errors.HfHubHTTPError) as error:
            HfApi(token=token).upload_file(
                path_or_fileobj=CONFIG, path_in_repo="config.yaml", repo_id=REPOSITORY
            )
        assert error.value.response.status_code == 401
    with pytest.raises(errors.HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_wrong").whoami()


def test_invalid_card_metadata_is_refused_before_the_upload(server):
    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        HfApi().upload_file(
            path_or_fileobj=b"---\nlicense: [\n---\n", path_in_repo="README.md", repo_id=REPOSITORY
        )
    assert not [path for _, path in server.requests if "commit" in path]


def test_wrong_bytes_are_noticed_by_a_comparison_only(server):
    # The client compares sizes, not checksums. The blob's name is the published sha256.
    server.corrupt(REPOSITORY, "model.safetensors")
    path = Path(hf_hub_download(REPOSITORY, "model.safetensors"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() != path.resolve().name
    hf_hub_download(REPOSITORY, "config.yaml")
    (mismatch,) = HfApi().verify_repo_checksums(REPOSITORY).mismatches
    assert mismatch["path"] == "model.safetensors" and mismatch["algorithm"] == "sha256"
    assert mismatch["expected"] == path.resolve().name


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
def test_a_path_outside_of_the_cache_is_refused_by_the_client(server, name):
    server.repos["me/evil"] = {name: b"evil"}
    assert HfApi().list_repo_files("me/evil") == [name]
    for call in (lambda: snapshot_download("me/evil"), lambda: hf_hub_download("me/evil", name)):
        with pytest.raises(ValueError, match="Invalid filename"):
            call()
    assert not count(server, "GET", "evil/resolve/main/" + name)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("evil"))


def test_a_missing_file_is_remembered_in_the_cache(server):
    with pytest.raises(errors.RemoteEntryNotFoundError):
        hf_hub_download(REPOSITORY, "missing.yaml")
    answer = try_to_load_from_cache(REPOSITORY, "missing.yaml")
    assert answer is not None and not isinstance(answer, str)


def test_functions_of_the_module_use_the_server(server):
    assert model_info(REPOSITORY).sha == server.commit_of(REPOSITORY)


def test_a_child_process_uses_the_server(server):
    download = f"hf_hub_download({REPOSITORY!r}, 'model.safetensors')"
    code = f"from huggingface_hub import hf_hub_download; print({download})"
    command = [sys.executable, "-c", code]
    path = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    assert path.startswith(constants.HF_HUB_CACHE)
    assert Path(path).read_bytes() == WEIGHTS
