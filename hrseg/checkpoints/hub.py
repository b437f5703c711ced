"""ImageNet weights from the Hugging Face Hub, by the names of timm."""

from pathlib import Path

from hrseg.errors import ConfigError


def is_on_hub(path: str | Path) -> bool:
    """Return whether a path names a repository of timm on the Hub; a local file comes first."""
    return str(path).startswith("timm/") and not Path(path).exists()


def fetch(name: str) -> Path:
    """Download the weights of "timm/<name>" once; return the file in the Hub's cache.

    Raises:
        ConfigError: huggingface_hub is not installed, no such repository, or no network.
    """
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise ConfigError(
            f"{name} lies on the Hugging Face Hub: pip install huggingface_hub\n"
            "or download its model.safetensors and give its path."
        ) from error
    try:
        return Path(hf_hub_download(name, "model.safetensors"))
    except Exception as error:  # of the Hub, the network or the disk
        reason = str(error).strip().partition("\n")[0][:200]
        raise ConfigError(
            f"{name} could not be downloaded ({type(error).__name__}): {reason}\n"
            "Expected a name such as timm/hrnet_w18.ms_aug_in1k, and a network. "
            "A downloaded model.safetensors is taken by its path."
        ) from error
