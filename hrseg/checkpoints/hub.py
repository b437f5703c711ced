"""Download of timm's ImageNet weights from the Hugging Face Hub."""

from pathlib import Path

from hrseg.errors import ConfigError


def is_on_hub(path: str | Path) -> bool:
    """Return whether a path names a timm repository on the Hub; a local file takes precedence."""
    return str(path).startswith("timm/") and not Path(path).exists()


def fetch(name: str) -> Path:
    """Download the weights of "timm/<name>" once and return the path in the Hub's cache.

    Raises:
        ConfigError: if huggingface_hub, the repository or the network is missing.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(
            f"{name} is on the Hugging Face Hub, and huggingface_hub is not installed.\n"
            "Expected: the package, or the path of a downloaded model.safetensors.\n"
            "Fix: `pip install huggingface_hub`"
        ) from error
    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # from the Hub, the network or the disk
        reason = str(error).strip().partition("\n")[0][:200].rstrip(".")
        raise ConfigError(
            f"{name} could not be downloaded ({type(error).__name__}): {reason}.\n"
            "Expected: a name such as timm/hrnet_w18.ms_aug_in1k, and a network connection.\n"
            "Fix: download its model.safetensors elsewhere and give the path of the file."
        ) from error
