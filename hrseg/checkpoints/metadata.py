"""Model metadata stored in checkpoints and exported files: one builder, and validation."""

import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrseg.config.loader import to_dict
from hrseg.config.protocols import Protocol, make_protocol
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.models import create_model
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD
from hrseg.models.segmenter import plugin_of
from hrseg.utils.constants import __version__
from hrseg.utils.text import one_line
from hrseg.visualize import default_palette

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule

NAMES = ("architecture", "class_names", "palette", "flip_pairs", "mean", "std", "protocol")
_MOST = 20_000  # things in what a file says, a hundred times what it takes
FORMAT = 1  # of these and of what lies beside them: raise it where an older hrseg would misread


def build_metadata(
    architecture: Mapping[str, Any],
    class_names: Sequence[str],
    palette: Sequence[Sequence[int]],
    flip_pairs: Sequence[Sequence[int]],
    mean: Sequence[float],
    std: Sequence[float],
    protocol: Protocol,
    **optional: Any,
) -> dict[str, Any]:
    """Return, as plain data, everything that prediction with the weights needs.

    Args:
        architecture: arguments of `create_model`.
        class_names: one per class.
        palette: RGB colour of each class.
        flip_pairs: ids that swap in a mirrored image.
        mean: of the normalisation, per channel, for images in 0..1.
        std: of the normalisation.
        protocol: how images are evaluated.
        optional: `plugin`, which registered a part of the network or of its training.
    """
    return {
        "format": FORMAT,
        "version": __version__,
        "architecture": dict(architecture),
        "class_names": list(class_names),
        "palette": [list(color) for color in palette],
        "flip_pairs": [list(pair) for pair in flip_pairs],
        "mean": list(mean),
        "std": list(std),
        "protocol": protocol.to_dict(),
        **optional,
    }


def metadata_from_config(
    config: Config, data: "SegmentationDataModule", architecture: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the metadata of a network that a config and its data set describe."""
    return build_metadata(
        architecture,
        data.class_names,
        data.palette or default_palette(data.num_classes),
        data.flip_pairs,
        IMAGENET_MEAN,
        IMAGENET_STD,
        make_protocol(config.inference.protocol, to_dict(config.inference)),
        plugin=plugin_of(architecture),
    )


def check_facts(facts: Any, path: str | Path) -> None:
    """Refuse facts that no model could have.

    Args:
        facts: of a checkpoint or an exported file, plain data.
        path: the file, for the message.

    Raises:
        ConfigError: a newer format, or a fact that is missing, or of another type or range.
    """
    if not _is_small(facts):
        raise ConfigError(
            f"{path}: what it says of itself is no plain data, or far too much of it.\n"
            "Expected a file that hrseg wrote. It was made to harm, or copied badly."
        )
    _refuse_newer(facts, path)
    missing = [name for name in NAMES if not isinstance(facts, Mapping) or name not in facts]
    wrong = missing or [
        name for name, fits in _CHECKS.items() if name in facts and not fits(facts[name], facts)
    ]
    if wrong:
        raise ConfigError(
            f"{path}: what it says of itself is {'incomplete' if missing else 'damaged'}: "
            f"{', '.join(wrong)}.\nExpected a file that hrseg wrote. Copy it again, or load its "
            "weights by hrseg.create_model and hrseg.load_weights."
        )


def _is_small(facts: Any) -> bool:
    """Return whether facts are plain data that can be gone through.

    A list that is inside itself, or twice in each of sixty lists, would be written out for ever.
    """
    waiting, seen = [facts], 0
    while waiting and seen <= _MOST:
        one, seen = waiting.pop(), seen + 1
        if isinstance(one, Mapping):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            waiting += one
        elif isinstance(one, str):
            seen += len(one) // 100
        elif isinstance(one, int):
            seen += one.bit_length() // 100
        elif one is not None and not isinstance(one, float):
            return False
    return seen <= _MOST


def _refuse_newer(facts: Any, path: str | Path) -> None:
    """Raise before a file of a later hrseg is taken for a damaged one, or misread."""
    said = facts.get("format") if isinstance(facts, Mapping) else None
    if isinstance(said, int) and said > FORMAT:
        version = facts.get("version")
        writer = f"hrseg {version}" if _is_version(version, facts) else "a newer hrseg"
        raise ConfigError(
            f"{path} was written by {writer}, in a format that this hrseg, {__version__}, does "
            "not know.\nUpgrade: pip install --upgrade hrseg"
        )


def _is_format(value: Any, facts: Mapping[str, Any]) -> bool:
    return type(value) is int and 1 <= value <= FORMAT


def _is_version(value: Any, facts: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[\w.+!-]{1,40}", value, re.ASCII) is not None


def _is_architecture(value: Any, facts: Mapping[str, Any]) -> bool:
    known = inspect.signature(create_model, eval_str=True).parameters
    if not isinstance(value, dict) or not {"backbone", "num_classes"} <= set(value) <= set(known):
        return False
    kinds = {name: known[name].annotation for name in value}
    kinds = {name: float | int if kind is float else kind for name, kind in kinds.items()}
    kinds |= {name: str | dict for name in ("backbone", "head") if name in kinds}
    return all(isinstance(value[name], kind) for name, kind in kinds.items())


def _are_names(value: Any, facts: Mapping[str, Any]) -> bool:
    architecture = facts["architecture"]
    count = architecture.get("num_classes") if isinstance(architecture, Mapping) else None
    return isinstance(value, list) and len(value) == count and all(map(_is_name, value))


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= 200 and one_line(value) == value


def _is_palette(value: Any, facts: Mapping[str, Any]) -> bool:
    def is_color(color: Any) -> bool:
        return isinstance(color, list | tuple) and len(color) == 3 and _are_ids(color, 256)

    if not isinstance(value, list) or not isinstance(facts["class_names"], list):
        return False
    return len(value) == len(facts["class_names"]) and all(map(is_color, value))


def _are_pairs(value: Any, facts: Mapping[str, Any]) -> bool:
    if not isinstance(value, list | tuple) or not isinstance(facts["class_names"], list):
        return False
    pairs = [pair for pair in value if isinstance(pair, list | tuple) and len(pair) == 2]
    return len(pairs) == len(value) and all(_are_ids(p, len(facts["class_names"])) for p in pairs)


def _are_numbers(value: Any, facts: Mapping[str, Any]) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(isinstance(number, int | float) and abs(number) < 1e6 for number in value)
    )


def _are_positive(value: Any, facts: Mapping[str, Any]) -> bool:
    return _are_numbers(value, facts) and min(value) > 0


def _is_protocol(value: Any, facts: Mapping[str, Any]) -> bool:
    try:
        protocol = Protocol(**value)
    except (TypeError, ConfigError):
        return False
    whole = (protocol.pad_multiple, protocol.base_size)
    # Protocol checks the rest; sides above 2**16 would fill the memory.
    return (
        _is_name(protocol.name)
        and isinstance(protocol.window_above, int | float)
        and _are_ids(whole, 2**16 + 1)
    )


def _are_ids(values: Any, limit: int) -> bool:
    return all(isinstance(value, int) and 0 <= value < limit for value in values)


def _is_plugin(value: Any, facts: Mapping[str, Any]) -> bool:
    return value is None or (isinstance(value, str) and len(value) < 2**12)


_CHECKS = {
    "plugin": _is_plugin,
    "format": _is_format,
    "version": _is_version,
    "architecture": _is_architecture,
    "class_names": _are_names,
    "palette": _is_palette,
    "flip_pairs": _are_pairs,
    "mean": _are_numbers,
    "std": _are_positive,
    "protocol": _is_protocol,
}
