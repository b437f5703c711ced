"""Loading of weights into a model, with a report of the tensors that did not fit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from hrseg.checkpoints.hub import fetch, is_remote, resolve
from hrseg.checkpoints.integrity import whole_checkpoint
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.origins import FAMILIES, MARK, Found, State, foreign, recognise
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import checkpoint_at
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.models.hrnet import VARIANTS
from hrseg.models.pyramid import FeaturePyramid
from hrseg.models.segmenter import Segmenter, create_model
from hrseg.utils.registry import find
from hrseg.utils.text import some

if TYPE_CHECKING:
    from hrseg.data.datamodule import SegmentationDataModule

PURPOSES = {"evaluate": "", "initialise": "backbone."}  # start of the keys that must match


@dataclass(frozen=True)
class Report:
    """Tensors of a file that a model takes or lacks, under their names in the model.

    Attributes:
        matched: in both, with equal shapes.
        missing: in the model only, without batch counters.
        unexpected: in the file only.
        mismatched: in both, with other shapes.
        family: a key of FAMILIES.
        network: of the file, for example "an official HRNetV2-W48 with 19 classes".
        notes: changes and omissions during the conversion to the model's names, a line each.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    family: str
    network: str
    notes: list[str]

    def __str__(self) -> str:
        """Return a line for each kind of tensors."""
        others = {
            "not taken, other shape": self.mismatched,
            "not in the file, left as they were": self.missing,
            "in the file, not used": self.unexpected,
        }
        taken = f"{len(self.matched)} tensors taken from {self.network}"
        rest = [f"{len(keys)} {kind}: {some(keys)}" for kind, keys in others.items() if keys]
        return "\n".join([taken, *self.notes, *rest])


def load_weights(
    model: Segmenter | FeaturePyramid,
    path_or_state_dict: str | Path | Mapping[str, Any],
    source: str = "auto",
    purpose: str = "evaluate",
    origin: str | Path | None = None,
) -> Report:
    """Copy weights into `model`; a refused file leaves the model as it was.

    Args:
        model: the model to fill.
        path_or_state_dict: a .pth of the authors' code or of mmseg, a .ckpt or .safetensors of
            hrseg; a name of weights to download, "imagenet", "ssld", "timm/NAME", "hf:USER/NAME"
            or "hub:NAME"; or the state dict itself, bare or as such a file wraps it.
        source: a key of FAMILIES, or "auto" to choose by the keys.
        purpose: "evaluate" requires every tensor; "initialise" requires the whole backbone, and
            takes the tensors of the head that fit.
        origin: the file of a given state dict; names of official files contain their torch.

    Raises:
        ConfigError: the file cannot be read, is of no known family, or does not fit.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"load_weights got a {type(model).__name__} in place of the model.\n"
            "Expected: a model of hrseg. Fix: hrseg.load_weights(model, path)"
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
    # Tensors too many are refused as well: a W18 contains all of W18-small-v2.
    if any(key.startswith(required) for key in differing):
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
    """Return the network in a checkpoint, and which of its tensors the model would take.

    Arguments and errors as of `load_weights`; the model stays as it is.
    """
    expected = model.state_dict()
    if f"backbone.{MARK}" in expected:
        network = _without_unused(model, recognise(raw, source, origin))
    else:
        network = foreign(raw, origin)
    if purpose == "initialise" and "head.aux_head.0.weight" in expected:
        network = _regions_from_fcn(network)
    state = network.state
    fits = {name: state[name].shape == expected[name].shape for name in expected if name in state}
    missing = [name for name in expected if name not in state]
    return network, Report(
        matched=[name for name, same in fits.items() if same],
        # Files of torch 0.4 have no batch counters, and no computation needs them.
        missing=[name for name in missing if not name.endswith("num_batches_tracked")],
        unexpected=[name for name in state if name not in expected],
        mismatched=[name for name, same in fits.items() if not same],
        family=network.family,
        network=f"{FAMILIES[network.family].title} {describe(state)}",
        notes=network.notes,
    )


def build_model(config: Config, data: "SegmentationDataModule") -> Segmenter:
    """Return the network of a config for the classes of a data set, with random weights."""
    return create_model(
        config.model.backbone.model_dump(exclude_defaults=True),
        head=dict(config.model.head),
        num_classes=data.num_classes,
        align_corners=config.model.align_corners,
        bn_momentum=config.model.bn_momentum,
        output=config.model.output,
    )


def load_model(
    path: str | Path, model: Segmenter | None = None
) -> tuple[Segmenter, dict[str, Any]]:
    """Return the network of a checkpoint or a run folder with its weights, and the metadata.

    `model` takes the weights instead of the network that the metadata describes. Errors as of
    `load_weights`; ConfigError also for a file without metadata.
    """
    checkpoint = checkpoint_at(Path(path))
    content = read_checkpoint(checkpoint)
    metadata = content.get("hrseg")
    if not isinstance(metadata, dict):
        recognise(content, "auto", str(checkpoint))  # raises if it contains no HRNet
        raise ConfigError(
            f"{checkpoint} has no metadata (no 'hrseg' entry): its network is unknown.\n"
            "Fix: hrseg predict --config NAME --checkpoint FILE; in Python "
            "hrseg.create_model and hrseg.load_weights."
        )
    read_metadata(metadata, checkpoint)
    model = model or described_model(metadata, checkpoint)
    load_weights(model, content, purpose="evaluate", origin=checkpoint)
    return model, metadata


def described_model(metadata: Mapping[str, Any], path: Path) -> Segmenter:
    """Return the network of a file's metadata, with random weights.

    Raises:
        ConfigError: an unknown part, with its plugin, or one that create_model does not build.
    """
    if metadata.get("replaced"):
        raise ConfigError(
            f"{path} has parts that create_model does not build: {metadata['replaced']}.\n"
            "Expected: the network as it was made for the training.\n"
            "Fix: hrseg.SegmentationTask.load_from_checkpoint(path, model=...)"
        )
    try:
        return create_model(**metadata["architecture"])
    except ConfigError as error:
        if not metadata.get("plugin"):
            raise
        raise ConfigError(
            f"{path} has a network with parts of a missing plugin.\n"
            f"Fix: add --plugin {metadata['plugin']}; in Python import it before."
        ) from error


def to_official(model: Segmenter) -> State:
    """Return the state dict under the authors' names; its tensors are the model's own."""
    # Attributes below `backbone` and `head` are named as the authors name them.
    return {name.partition(".")[2]: tensor for name, tensor in model.state_dict().items()}


def _without_unused(model: Segmenter | FeaturePyramid, network: Found) -> Found:
    """Leave out the last exchange of the other streams, for which output v1 has no layers."""
    if len(model.backbone.channels) > 1:
        return network
    others = re.compile(r"backbone\.stage4\.\d+\.fuse_layers\.[1-3]\.")
    expected = model.state_dict()
    unused = {name for name in network.state if others.match(name) and name not in expected}
    state = {name: tensor for name, tensor in network.state.items() if name not in unused}
    note = [f"output v1: {len(unused)} tensors of the other streams not used"] if unused else []
    return network._replace(state=state, notes=[*network.notes, *note])


def _regions_from_fcn(network: Found) -> Found:
    """Let an FCN head draw the regions of an OCR head, as the authors start one from the other."""
    state = {
        re.sub(r"^head\.last_layer\.", "head.aux_head.", name): tensor
        for name, tensor in network.state.items()
    }
    if state.keys() == network.state.keys():
        return network
    return network._replace(
        state=state, notes=[*network.notes, "FCN head taken as the auxiliary head"]
    )


def _refusal(expected: State, state: State, report: Report, origin: str, purpose: str) -> str:
    if report.family in ("imagenet", "timm") and purpose == "evaluate":
        return (
            f"{origin} is {FAMILIES[report.family].title} file ({describe(state)}): nothing to "
            'evaluate.\nTrain from it: purpose="initialise", or `model.weights` in a config.'
        )
    shapes = [
        f"{name} is {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in report.mismatched
    ]
    differing = {"other shape": shapes, "missing": report.missing, "too many": report.unexpected}
    details = [f"{len(d)} {what} ({some(d, 1)})" for what, d in differing.items() if d]
    repair = "Create the model that the file was made for, or give another file."
    if purpose == "evaluate" and not any("backbone." in d for d in details):
        repair += ' purpose="initialise" takes what fits.'
    return (
        f"{origin} does not fit: it holds {report.network}, expected {describe(expected)}.\n"
        f"Tensors: {'; '.join(details)}.\n{repair}"
    )


def describe(state: State) -> str:
    """Return the name of a network, for example "HRNetV2-W48 with 19 classes"."""
    if f"backbone.{MARK}" not in state:
        return f"network that is not an HRNet, with {len(state)} tensors"
    width = _rows(state[f"backbone.{MARK}"])
    blocks = sum(bool(re.fullmatch(r"backbone\.layer1\.\d\.conv1\.weight", key)) for key in state)
    name = f"W{width} of unknown depth"
    for variant, row in VARIANTS.items():
        if (row.width, row.stage1_blocks) == (width, blocks):
            name = variant.removeprefix("hrnet_").replace("_", "-").capitalize()
    classifier = state.get("head.last_layer.3.weight")
    head = "without an FCN head" if classifier is None else f"with {_rows(classifier)} classes"
    if "head.cls_head.weight" in state:
        head = f"with an OCR head of {_rows(state['head.cls_head.weight'])} classes"
    modules = {int(key.split(".")[2]) for key in state if key.startswith("backbone.stage4.")}
    last = f"backbone.stage4.{max(modules, default=0)}.fuse_layers.1."
    # Output v1 has no layers towards the other streams at its end.
    version = 2 if any(key.startswith(last) for key in state) else 1
    return f"HRNetV{version}-{name} {head}"


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 0
