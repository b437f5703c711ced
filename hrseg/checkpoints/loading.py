"""Loading of weights into a model, with a report of missing and mismatched tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from hrseg.checkpoints.hub import fetch, is_remote, resolve
from hrseg.checkpoints.integrity import whole_checkpoint
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.network_names import FUSION, describe
from hrseg.checkpoints.origins import FAMILIES, MARK, Found, State, read_other_network, recognise
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import checkpoint_at
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.models.pyramid import FeaturePyramid
from hrseg.models.segmenter import Segmenter, create_model
from hrseg.utils.registry import find
from hrseg.utils.text import some

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule

# Pattern of the keys that must match. Published weights lack the convolution of output v1h.
PURPOSES = {"evaluate": "", "initialise": r"backbone\.(?!widen\.)"}


@dataclass(frozen=True)
class Report:
    """Comparison of a file's tensors with a model's, by their names in the model.

    Attributes:
        matched: tensors in both, with equal shapes.
        missing: tensors only in the model, without batch counters.
        unexpected: tensors only in the file.
        mismatched: tensors in both, with different shapes.
        family: a key of FAMILIES.
        network: the file's network, for example "an official HRNetV2-W48 with 19 classes".
        notes: changes and omissions during the conversion of names, one line each.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    family: str
    network: str
    notes: list[str]

    def __str__(self) -> str:
        """Return one line per group of tensors."""
        groups = {
            "not loaded, different shape": self.mismatched,
            "not in the file, unchanged": self.missing,
            "in the file, not used": self.unexpected,
        }
        matched = f"{len(self.matched)} tensors loaded from {self.network}"
        others = [f"{len(keys)} {group}: {some(keys)}" for group, keys in groups.items() if keys]
        return "\n".join([matched, *self.notes, *others])


def load_weights(
    model: Segmenter | FeaturePyramid,
    path_or_state_dict: str | Path | Mapping[str, Any],
    source: str = "auto",
    purpose: str = "evaluate",
    origin: str | Path | None = None,
) -> Report:
    """Copy weights into `model`. If the file is refused, the model stays unchanged.

    Args:
        model: the model that receives the weights.
        path_or_state_dict: a .pth of the authors' code or of mmseg, a .ckpt or .safetensors of
            hrseg; the name of weights to download, "imagenet", "ssld", "timm/NAME",
            "hf:USER/NAME" or "hub:NAME"; or a state dict, bare or wrapped like such a file.
        source: a key of FAMILIES, or "auto" to choose it by the keys of the state dict.
        purpose: "evaluate" requires every tensor. "initialise" requires every tensor of the
            backbone, and loads the matching tensors of the head. It fits the first convolution to
            the model's number of channels, and leaves out fusions that the model's `exchange`
            does not have.
        origin: the file of a given state dict. Names of official files contain the torch version.

    Returns:
        The matched, missing, unexpected and mismatched tensors.

    Raises:
        ConfigError: if the file cannot be read, has an unknown family, or does not fit the model.

    Example:
        >>> import hrseg
        >>> model = hrseg.create_model("hrnet_w18_small_v1", num_classes=11)
        >>> trained = hrseg.create_model("hrnet_w18_small_v1", num_classes=19)
        >>> report = hrseg.load_weights(model, trained.state_dict(), purpose="initialise")
        >>> report.mismatched
        ['head.last_layer.3.weight', 'head.last_layer.3.bias']
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"load_weights got a {type(model).__name__} as the model.\n"
            "Expected: a model of hrseg. Fix: `hrseg.load_weights(model, path)`"
        )
    required = find(PURPOSES, purpose, "purpose")
    if isinstance(path_or_state_dict, Mapping):
        raw, name = path_or_state_dict, str(origin or "the state dict")
    elif is_remote(path_or_state_dict):
        name = resolve(str(path_or_state_dict), getattr(model.backbone, "variant", None))
        raw = read_checkpoint(fetch(name))
        if name.startswith("timm/") and source == "auto":
            source = "timm"
    else:
        given = Path(path_or_state_dict).expanduser()
        whole = whole_checkpoint(given)
        name = str(path_or_state_dict if whole == given else whole)
        raw = read_checkpoint(name)
    network, report = compare(model, raw, source, name, purpose)
    differing = [*report.mismatched, *report.missing, *report.unexpected]
    # Unexpected tensors are refused as well: a W18 contains every tensor of a W18-small-v2.
    if any(re.match(required, key) for key in differing):
        raise ConfigError(_refusal(model.state_dict(), network.state, report, name, purpose))
    model.load_state_dict({key: network.state[key] for key in report.matched}, strict=False)
    return report


def compare(
    model: Segmenter | FeaturePyramid,
    raw: Mapping[str, Any],
    source: str = "auto",
    origin: str = "the state dict",
    purpose: str = "evaluate",
) -> tuple[Found, Report]:
    """Return the weights in a checkpoint, and their comparison with the model.

    The model stays unchanged. Arguments and errors are those of `load_weights`.
    """
    expected = model.state_dict()
    if f"backbone.{MARK}" in expected:
        network = _without_unused(model, recognise(raw, source, origin), purpose)
    else:
        network = read_other_network(raw, origin)
    if purpose == "initialise" and "head.aux_head.0.weight" in expected:
        network = _regions_from_fcn(network)
    if purpose == "initialise":
        network = _inflated(network, expected)
    state = network.state
    fits = {name: state[name].shape == expected[name].shape for name in expected if name in state}
    missing = [name for name in expected if name not in state]
    return network, Report(
        matched=[name for name, same in fits.items() if same],
        # Files of torch 0.4 have no batch counters. No computation uses the counters.
        missing=[name for name in missing if not name.endswith("num_batches_tracked")],
        unexpected=[name for name in state if name not in expected],
        mismatched=[name for name, same in fits.items() if not same],
        family=network.family,
        network=f"{FAMILIES[network.family].title} {describe(state)}",
        notes=network.notes,
    )


def build_model(config: Config, data: "SegmentationDataModule") -> Segmenter:
    """Return the network of a config with random weights, for the classes of a data set."""
    return create_model(
        config.model.backbone.model_dump(exclude_defaults=True),
        head=dict(config.model.head),
        num_classes=data.num_classes,
        align_corners=config.model.align_corners,
        bn_momentum=config.model.bn_momentum,
        output=config.model.output,
        in_channels=data.in_channels,
        exchange=config.model.exchange,
    )


def load_model(
    path: str | Path, model: Segmenter | None = None
) -> tuple[Segmenter, dict[str, Any]]:
    """Return the network of a checkpoint or a run folder with its weights, and its metadata.

    Args:
        path: a checkpoint, or a run folder.
        model: a model to load the weights into, instead of the network in the metadata.

    Raises:
        ConfigError: as for `load_weights`, and if the file has no metadata.
    """
    checkpoint = checkpoint_at(Path(path))
    content = read_checkpoint(checkpoint)
    metadata = content.get("hrseg")
    if not isinstance(metadata, dict):
        recognise(content, "auto", str(checkpoint))  # raises if it contains no HRNet
        raise ConfigError(
            f"{checkpoint} contains no metadata (no 'hrseg' entry).\n"
            "Expected: a checkpoint written by hrseg, or a config that describes its network.\n"
            "Fix: `hrseg predict --config NAME --checkpoint FILE`; in Python "
            "hrseg.create_model and hrseg.load_weights."
        )
    read_metadata(metadata, checkpoint)
    model = model or described_model(metadata, checkpoint)
    load_weights(model, content, purpose="evaluate", origin=checkpoint)
    return model, metadata


def described_model(metadata: Mapping[str, Any], path: Path) -> Segmenter:
    """Return the network in a file's metadata, with random weights.

    Raises:
        ConfigError: if a part is unknown (the message names its plugin), or if create_model cannot
            build it.
    """
    if metadata.get("replaced"):
        raise ConfigError(
            f"{path} has parts that create_model does not build: {metadata['replaced']}.\n"
            "Expected: the same network that the training script built.\n"
            "Fix: `hrseg.SegmentationTask.load_from_checkpoint(path, model=...)`"
        )
    try:
        return create_model(**metadata["architecture"])
    except ConfigError as error:
        if not metadata.get("plugin"):
            raise
        raise ConfigError(
            f"{path} has a network with parts from a plugin, and the plugin is not loaded.\n"
            f"Fix: add --plugin {metadata['plugin']}; in Python, import the plugin first."
        ) from error


def to_official(model: Segmenter) -> State:
    """Return the state dict under the authors' names. It shares its tensors with the model."""
    # Attributes of `backbone` and `head` have the authors' names.
    return {name.partition(".")[2]: tensor for name, tensor in model.state_dict().items()}


def _without_unused(model: Segmenter | FeaturePyramid, network: Found, purpose: str) -> Found:
    """Remove the fusions that the model does not have.

    Fusions into streams outside of the output have no effect. Those outside of `exchange` have one,
    so that they are removed only from initial weights.
    """
    expected, backbone = model.state_dict(), model.backbone
    absent = [name for name in network.state if FUSION.match(name) and name not in expected]
    last = f"backbone.stage4.{len(backbone.stage4) - 1}."
    unused = {}
    if getattr(backbone, "output", "v2") != "v2":
        others = [name for name in absent if name.startswith(last)]
        unused[f"output {backbone.output}: {len(others)} tensors of the other streams"] = others
    if purpose == "initialise" and getattr(backbone, "exchange", "all") != "all":
        others = [name for name in absent if not name.startswith(last)]
        unused[f"exchange {backbone.exchange}: {len(others)} tensors of other fusions"] = others
    removed = {name for names in unused.values() for name in names}
    return network._replace(
        state={name: tensor for name, tensor in network.state.items() if name not in removed},
        notes=[*network.notes, *(f"{text} not used" for text, names in unused.items() if names)],
    )


def _regions_from_fcn(network: Found) -> Found:
    """Rename an FCN head to the auxiliary head of an OCR model, as the authors initialise it."""
    state = {
        re.sub(r"^head\.last_layer\.", "head.aux_head.", name): tensor
        for name, tensor in network.state.items()
    }
    if state.keys() == network.state.keys():
        return network
    return network._replace(
        state=state, notes=[*network.notes, "FCN head loaded as the auxiliary head"]
    )


_STEM = "backbone.conv1.weight"


def _inflated(network: Found, expected: State) -> Found:
    """Copy the stem's weights of three channels to the model's number of channels.

    Channel i receives the weights of channel i mod 3, times 3 / N, so that the sum of the weights
    stays about the same.
    """
    weights, wanted = network.state.get(_STEM), expected.get(_STEM)
    if weights is None or wanted is None or weights.dim() != 4 or weights.shape[1] != 3:
        return network
    count = wanted.shape[1]
    if count == 3:
        return network
    inflated = weights[:, [channel % 3 for channel in range(count)]] * (3 / count)
    note = f"stem inflated from 3 to {count} channels: channel i has the weights of i mod 3, "
    note += f"times 3/{count}"
    state = {**network.state, _STEM: inflated}
    return network._replace(state=state, notes=[*network.notes, note])


def _refusal(expected: State, state: State, report: Report, origin: str, purpose: str) -> str:
    if report.family in ("imagenet", "timm") and purpose == "evaluate":
        return (
            f"{origin} is {FAMILIES[report.family].title} file ({describe(state)}).\n"
            "Expected: a segmentation network, which can be evaluated.\n"
            'Fix: train from it: purpose="initialise", or `model.weights` in a config.'
        )
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in report.mismatched
    ]
    groups = {
        "with another shape": shapes,
        "missing": report.missing,
        "unexpected": report.unexpected,
    }
    details = [f"{len(keys)} {group} ({some(keys, 1)})" for group, keys in groups.items() if keys]
    fix = "Fix: create the matching model, or give another file."
    if purpose == "evaluate" and not any("backbone." in detail for detail in details):
        fix += ' purpose="initialise" loads the matching tensors.'
    return (
        f"{origin} does not fit the model: it contains {report.network}.\n"
        f"Expected: {describe(expected)}.\n"
        f"Tensors: {', '.join(details)}.\n{fix}"
    )
