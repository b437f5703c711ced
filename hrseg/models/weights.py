"""Weights in and out: what a file holds, what of it fits the model, and what does not."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.lookup import find
from hrseg.models.backbone import Backbone
from hrseg.models.families import FAMILIES, MARK, Found, State, recognise, some
from hrseg.models.hrnet import VARIANTS
from hrseg.models.segmenter import Segmenter

PURPOSES = {"evaluate": "", "initialise": "backbone."}  # What must match: keys that start so.


@dataclass(frozen=True)
class Report:
    """What became of the tensors, under the names that they have in the model.

    Attributes:
        matched: taken.
        missing: in the model, not in the file; batch counters do not count.
        unexpected: in the file, not in the model.
        mismatched: in both, with other shapes.
        family: a key of FAMILIES.
        holds: the file in words, for example "an official HRNetV2-W48 with 19 classes".
        notes: what was changed or left out on the way to the names of the model, a line each.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]
    family: str
    holds: str
    notes: list[str]

    def __str__(self) -> str:
        """Say it, a line for each thing."""
        not_taken = {
            "not taken, other shape": self.mismatched,
            "not in the file, left as they were": self.missing,
            "in the file, not used": self.unexpected,
        }
        taken = f"{len(self.matched)} tensors taken from {self.holds}"
        rest = [f"{len(keys)} {what}: {some(keys)}" for what, keys in not_taken.items() if keys]
        return "\n".join([taken, *self.notes, *rest])


def load_weights(
    model: Segmenter | Backbone,
    path_or_state_dict: str | Path | Mapping[str, Any],
    source: str = "auto",
    purpose: str = "evaluate",
    origin: str | Path | None = None,
) -> Report:
    """Copy weights into `model`; a refused file leaves the model as it was.

    Args:
        model: the model to fill.
        path_or_state_dict: a .pth of the authors' code or of mmseg, a .ckpt or .safetensors of
            hrseg, or the state dict itself, bare or as such a file wraps it.
        source: a key of FAMILIES, or "auto" to tell by the keys.
        purpose: "evaluate" requires every tensor; "initialise" requires the whole backbone, and
            takes of the head what fits.
        origin: the file that a given state dict was read from; official files say in their names
            which torch they are of, and messages name it.

    Raises:
        ConfigError: the file cannot be read, is of no known family, or does not fit.
    """
    required = find(PURPOSES, purpose, "purpose")
    if isinstance(path_or_state_dict, Mapping):
        raw, name = path_or_state_dict, str(origin or "the state dict")
    else:
        raw, name = read_checkpoint(path_or_state_dict), str(path_or_state_dict)
    found = _needed(model, recognise(raw, source, name))
    report = _compare(model.state_dict(), found)
    differing = [*report.mismatched, *report.missing, *report.unexpected]
    # Tensors too many are refused as well: all of W18-small-v2 is found inside a W18.
    if any(key.startswith(required) for key in differing):
        raise ConfigError(_refusal(model, found.state, report, name, purpose))
    taken = {key: found.state[key] for key in report.matched}
    model.load_state_dict(taken, strict=False)
    return report


def to_official(model: Segmenter) -> State:
    """Return the state dict under the authors' names; its tensors are the model's own."""
    # Attributes below `backbone` and `head` are named as the authors name them.
    return {name.partition(".")[2]: tensor for name, tensor in model.state_dict().items()}


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint file onto the CPU without running code from it.

    Returns:
        What `torch.save` wrote; for .safetensors `{"state_dict": tensors, "metadata": strings}`,
        and as "hrseg" what hrseg wrote down there.

    Raises:
        ConfigError: a URL, no such file, damaged, not a checkpoint, or with more than data in it.
    """
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise ConfigError(f"{path} is a URL.\nDownload the file, check its origin, give its path.")
    path = Path(path).expanduser()
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigError(
            f"cannot read the weights file {path.absolute()}: {error.strerror}.\n"
            "Expected a .pth, .ckpt or .safetensors file."
        ) from error
    raw = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} holds a {type(raw).__name__}, expected a state dict.")
    return raw


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ConfigError(
            f"{path} is damaged or no safetensors file: {error}.\nCopy or download it again."
        ) from error
    content: dict[str, Any] = {"state_dict": state, "metadata": metadata}
    if "hrseg" in metadata:
        try:
            content["hrseg"] = json.loads(metadata["hrseg"])
        except ValueError as error:
            raise ConfigError(f"{path}: its metadata 'hrseg' is no JSON: {error}.") from error
    return content


def write_safetensors(path: Path, state: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors, and as JSON what it takes to predict with them; `read_checkpoint` reads it."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, path, {"hrseg": json.dumps(facts)})


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_float()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # A damaged file raises nearly anything: KeyError, OSError, ...
        if code := re.search(r"GLOBAL (\S+)", str(error)):
            raise ConfigError(
                f"{path} holds more than tensors and plain data: {code[1]}.\n"
                "It was refused and nothing in it was run.\n"
                "If you trust it, save its state dict alone: torch.save(model.state_dict(), ...)."
            ) from error
        raise ConfigError(
            f"{path} is damaged, truncated, or not a checkpoint.\n"
            "Expected a file written by torch.save. Copy or download it again, compare its size."
        ) from error


def _numpy_float() -> list[Any]:
    """What unpickling a numpy float calls: the authors' checkpoint.pth.tar keeps its mIoU so."""
    scalar = numpy.float64(0).__reduce__()[0]
    return [
        (scalar, "numpy.core.multiarray.scalar"),  # Its name before numpy 2.
        (scalar, "numpy._core.multiarray.scalar"),
        *(numpy.dtype, numpy.dtypes.Float64DType),
    ]


def _needed(model: Segmenter | Backbone, found: Found) -> Found:
    """Leave out what output v1 has no layers for: the last exchange of the other streams."""
    if len(model.backbone.channels) > 1:
        return found
    others = re.compile(r"backbone\.stage4\.\d+\.fuse_layers\.[1-3]\.")
    expected = model.state_dict()
    unused = [name for name in found.state if others.match(name) and name not in expected]
    state = {name: tensor for name, tensor in found.state.items() if name not in unused}
    said = [f"output v1: {len(unused)} tensors of the other streams not used"] if unused else []
    return found._replace(state=state, notes=[*found.notes, *said])


def _compare(expected: State, found: Found) -> Report:
    state = found.state
    shared = [name for name in expected if name in state]
    fits = {name: state[name].shape == expected[name].shape for name in shared}
    missing = [name for name in expected if name not in state]
    return Report(
        matched=[name for name in shared if fits[name]],
        # Files of torch 0.4 have no batch counters, and no computation needs them.
        missing=[name for name in missing if not name.endswith("num_batches_tracked")],
        unexpected=[name for name in state if name not in expected],
        mismatched=[name for name in shared if not fits[name]],
        family=found.family,
        holds=f"{FAMILIES[found.family].title} {_describe(state)}",
        notes=found.notes,
    )


def _refusal(model: nn.Module, found: State, report: Report, origin: str, purpose: str) -> str:
    if report.family == "imagenet" and purpose == "evaluate":
        return (
            f"{origin} is an ImageNet classification file ({_describe(found)}): nothing to "
            'evaluate.\nTrain from it: purpose="initialise", or `model.weights` in a config.'
        )
    expected = model.state_dict()
    shapes = [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in report.mismatched
    ]
    differing = {"other shape": shapes, "missing": report.missing, "too many": report.unexpected}
    details = [f"{len(d)} {what} ({some(d, 1)})" for what, d in differing.items() if d]
    repair = "Create the model that the file was made for, or give another file."
    if purpose == "evaluate" and not any("backbone." in d for d in details):
        repair += ' purpose="initialise" takes what fits.'
    return (
        f"{origin} does not fit: it holds {report.holds}, expected {_describe(expected)}.\n"
        f"Tensors: {'; '.join(details)}.\n{repair}"
    )


def _describe(state: State) -> str:
    """Name the network, for example "HRNetV2-W48 with 19 classes"."""
    width = len(state[f"backbone.{MARK}"])
    blocks = sum(bool(re.fullmatch(r"backbone\.layer1\.\d\.conv1\.weight", key)) for key in state)
    name = f"W{width} of unknown depth"
    for variant, row in VARIANTS.items():
        if (row.width, row.stage1_blocks) == (width, blocks):
            name = variant.removeprefix("hrnet_").replace("_", "-").capitalize()
    classifier = state.get("head.last_layer.3.weight")
    head = "without an FCN head" if classifier is None else f"with {len(classifier)} classes"
    if "head.cls_head.weight" in state:
        head = f"with an OCR head of {len(state['head.cls_head.weight'])} classes"
    return f"HRNetV2-{name} {head}"
