"""Download of weights by name: ImageNet weights, Hugging Face Hub models, authors' checkpoints."""

import hashlib
import re
from pathlib import Path
from urllib.error import URLError

from hrseg.checkpoints.published import LICENCE, RELEASES, STARTS, WORDS, release_of, start_of
from hrseg.errors import ConfigError
from hrseg.utils.console import note

FILE = "model.safetensors"  # the only file read from the Hub, because it contains no code
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_remote(name: str | Path) -> bool:
    """Return whether a name refers to weights to download. A file named timm/NAME is preferred.

    Such names are "imagenet" and "ssld" (WORDS), "timm/NAME", "hf:USER/REPOSITORY" with an
    optional "@REVISION", and "hub:NAME" for a checkpoint of RELEASES.
    """
    text = str(name)
    if text in WORDS or text.startswith(("hf:", "hub:")):
        return True
    return text.startswith("timm/") and not Path(text).exists()


def resolve(name: str, backbone: str | None) -> str:
    """Return the repository for "imagenet" or "ssld"; other names are returned unchanged.

    Raises:
        ConfigError: if no such weights are published for this backbone.
    """
    return start_of(name, str(backbone)).repository if name in WORDS else name


def fetch(name: str, backbone: str | None = None) -> Path:
    """Return the file for a name, from the cache or downloaded once.

    Args:
        name: as in `is_remote`.
        backbone: a key of VARIANTS, for the words "imagenet" and "ssld".

    Raises:
        ConfigError: if the name is unknown or private, the checksum is wrong, or the file is not
            in the cache, and the connection fails.
    """
    name = resolve(name, backbone)
    if name.startswith("hub:"):
        return _fetch_release(name.removeprefix("hub:"))
    repository, _, revision = name.removeprefix("hf:").partition("@")
    return _fetch_from_hub(name, repository, revision or None)


def describe_download(name: str, backbone: str | None = None) -> str:
    """Return a line with the name, size, licence and cache folder of weights."""
    name = resolve(name, backbone)
    size = {start.repository: start.megabytes for start in STARTS}
    size |= {f"hub:{release.name}": release.megabytes for release in RELEASES}
    details = f"{size[name]} MB, licence {LICENCE}" if name in size else "licence: see its page"
    return f"weights {name} ({details}; cache {cache_of(name)})"


def cache_of(name: str) -> Path:
    """Return the cache folder for a name; the variables HF_HOME and TORCH_HOME change it."""
    if name.startswith("hub:"):
        import torch

        return Path(torch.hub.get_dir()) / "checkpoints"
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _fetch_from_hub(name: str, repository: str, revision: str | None) -> Path:
    import huggingface_hub as hub

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ConfigError(
            f"{name!r} is not the name of a repository on the Hugging Face Hub.\n"
            "Expected: hf:USER/REPOSITORY, for example hf:someone/street-scenes."
        )
    cached = None
    try:
        cached = hub.try_to_load_from_cache(repository, FILE, revision=revision)
        if isinstance(cached, str) and name.startswith("timm/"):  # unchanged since 2023
            return _verified(Path(cached), name)
        # A single request without retries reports a missing connection immediately.
        hub.get_hf_file_metadata(hub.hf_hub_url(repository, FILE, revision=revision))
        path = hub.hf_hub_download(repository, FILE, revision=revision, library_name="hrseg")
    except hub.errors.HfHubHTTPError as error:
        raise _refused(error, name, repository, revision) from error
    except Exception as error:  # the HTTP client's classes differ between versions
        if not isinstance(cached, str):
            raise _unreachable(name, str(error)) from error
        note(f"no connection to the Hugging Face Hub: {name} is the cached revision")
        path = cached
    return _verified(Path(path), name)


def _refused(error: Exception, name: str, repository: str, revision: str | None) -> ConfigError:
    """Return the error for a refused request."""
    from huggingface_hub import errors

    if isinstance(error, errors.RepositoryNotFoundError):  # also for private and gated ones
        return ConfigError(
            f"The repository {repository} was not found on the Hugging Face Hub, or is private.\n"
            "Expected: a public repository, or a token with read access.\n"
            "Fix: check the name; for a private repository run `hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ConfigError(
            f"The repository {repository} has no revision {revision}.\n"
            "Expected: one of its branches, tags or commits. Fix: leave out the part after @."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return ConfigError(
            f"The repository {repository} has no {FILE}.\n"
            f"Expected: weights as {FILE}; pickle files are not read from the Hub.\n"
            "Fix: download the file, check its origin, and give its path."
        )
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return ConfigError(
            f"The Hugging Face Hub refused the token for {repository}.\n"
            "Expected: a valid token that may read it, or none for a public repository.\n"
            "Fix: run `hf auth login` again, or correct or unset HF_TOKEN."
        )
    return _unreachable(name, str(error))


def _fetch_release(name: str) -> Path:
    import torch

    release = release_of(name)
    target = cache_of(f"hub:{name}") / f"{name}.pth"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Writes a temporary file, and moves it to the target when it is complete.
        torch.hub.download_url_to_file(release.url, str(target))
    except (URLError, OSError) as error:
        raise ConfigError(
            f"{release.url} could not be downloaded: {error}.\n"
            f"Expected: a connection, or the file as {target}.\n"
            "Fix: download it on another machine, and give its path: --checkpoint FILE"
        ) from error
    return target


def _unreachable(name: str, reason: str = "") -> ConfigError:
    """Return the error for weights that are neither in the cache nor reachable."""
    first_line = reason.strip().partition("\n")[0][:120]
    if "offline mode is enabled" in first_line:
        first_line = "HF_HUB_OFFLINE is set"
    random, option = "model.weights=null trains from random weights. ", "model.weights=PATH"
    if name.startswith("hf:"):  # often a trained model
        random, option = "", f"--checkpoint PATH or {option}"
    return ConfigError(
        f"The weights {name} ({FILE}) could not be downloaded: {first_line or 'no connection'}.\n"
        f"Expected: a connection to the Hugging Face Hub, or the file in {cache_of(name)}.\n"
        f"Fix: {random}Offline: run `hrseg weights get "
        f"{name}`\non a connected machine, copy the printed file, and give {option}."
    )


def _verified(path: Path, name: str) -> Path:
    """Return a cached file after a check of its sha256, which is the name of its cache blob."""
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name):
        return path
    with blob.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != blob.name:
        raise ConfigError(
            f"{path} of {name} has the sha256 {digest}.\nExpected: {blob.name}, from the Hub.\n"
            f"Fix: remove {blob}, and download it again."
        )
    return path
