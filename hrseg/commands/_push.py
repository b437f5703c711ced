"""Upload of a model folder to the Hugging Face Hub: the network part of `hrseg push`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi, errors

from hrseg.errors import ConfigError
from hrseg.utils.constants import __version__


def upload(folder: Path, files: Sequence[Path], repository: str, private: bool) -> str:
    """Create a missing repository, and add the files in one commit; return its URL.

    Raises:
        ConfigError: no token, no write access, or no connection. The folder stays.
    """
    api = HfApi(library_name="hrseg", library_version=__version__)
    hint = f"The folder {folder} stays; `hrseg push` uploads it again."
    try:
        with suppress(errors.RepositoryNotFoundError):
            api.model_info(repository, timeout=10)  # the calls below have no timeout
        api.create_repo(repository, private=private, exist_ok=True)
        added = [CommitOperationAdd(str(f.relative_to(folder)), f) for f in files]
        message = f"Upload by hrseg {__version__}"
        api.create_commit(repository, added, commit_message=message)
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status in (401, 403):
            raise ConfigError(
                f"The Hugging Face Hub refused the upload to {repository} (HTTP {status}).\n"
                "Expected: a token with write access to this name.\n"
                f"Fix: run `hf auth login`, or set HF_TOKEN. {hint}"
            ) from error
        reason = str(error).strip().partition("\n")[0][:150]
        raise ConfigError(f"The upload to {repository} failed: {reason}\n{hint}") from error
    except Exception as error:  # connection errors of the HTTP client have no common base class
        reason = str(error).strip().partition("\n")[0][:150]
        raise ConfigError(
            f"The Hugging Face Hub could not be reached: {reason or type(error).__name__}.\n"
            f"Expected: a connection to {api.endpoint}. {hint}"
        ) from error
    return f"{api.endpoint}/{repository}"
