"""Recognition of a state dict's origin by its keys, and conversion to hrseg's parameter names."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from hrseg.checkpoints.mmseg import RESTORE, from_mmseg, refuse_other_heads
from hrseg.errors import ConfigError
from hrseg.utils.registry import find
from hrseg.utils.text import some

State = dict[str, Tensor]
Renamed = tuple[State, list[str]]
MARK = "stage2.0.branches.0.0.conv1.weight"  # key of every HRNet; the tensor's length is the width
# Prefixes of DataParallel, the authors' FullModel, LightningModule and torch.compile.
WRAPPERS = r"(?:module\.|model\.|_orig_mod\.)*"
CLASSIFICATION = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")


class Found(NamedTuple):
    """Weights from a file, under hrseg's names.

    Attributes:
        family: a key of FAMILIES.
        state: the tensors under hrseg's names.
        notes: changes and omissions during the conversion, one line each.
    """

    family: str
    state: State
    notes: list[str]


def recognise(raw: Mapping[str, Any], source: str, origin: str) -> Found:
    """Return the weights in a state dict, bare or in the entry `state_dict`.

    Args:
        raw: the content of a checkpoint.
        source: a key of FAMILIES, or "auto".
        origin: the file of the state dict. Names of official files contain the torch version.

    Raises:
        ConfigError: if the state dict contains no HRNet, or belongs to a family other than
            `source`.
    """
    find({"auto": None, **FAMILIES}, source, "source of weights")
    if isinstance(raw.get("hrseg"), Mapping) and not any(MARK in key for key in _tensors(raw)):
        return read_other_network(raw, origin)
    state = _network(raw, origin)
    possible, reason = _families(state, Path(origin).name)
    family = possible[0] if source == "auto" else source
    if family not in possible:
        raise ConfigError(
            f"{origin} is {FAMILIES[possible[0]].title} file, but source is {source!r}.\n"
            f'Expected: source="{possible[0]}", or "auto" to recognise it by the keys.'
        )
    if family == "mmseg":
        refuse_other_heads(state, origin)
        state, notes = _without(state, ("auxiliary_head.",), "auxiliary head")
        renamed, bias_notes = from_mmseg(state, raw.get(RESTORE))
        return Found(family, renamed, notes + bias_notes)
    renamed, notes = FAMILIES[family].to_hrseg(state)
    if family in NORM_WEIGHTS:
        note = f"norm weights {NORM_WEIGHTS[family]}"
        if family != possible[0]:
            auto = NORM_WEIGHTS[possible[0]]
            note = f'warning: {note}, as requested; with source="auto" they are {auto}'
        notes = [f"{note}: {reason}", *notes]
    return Found(family, renamed, notes)


def read_other_network(raw: Mapping[str, Any], origin: str) -> Found:
    """Return the tensors of a network other than an HRNet, with unchanged names.

    A file with neither `backbone.` nor `head.` in its names is read as a backbone.
    """
    tensors = _tensors(raw)
    names = {key: re.match(rf"{WRAPPERS}((?:backbone|head)\..*)", key) for key in tensors}
    state = {match[1]: tensors[key] for key, match in names.items() if match}
    state = state or {f"backbone.{key}": tensor for key, tensor in tensors.items()}
    _refuse_whole_numbers(state, origin)
    return Found("hrseg", state, [])


class Family(NamedTuple):
    """An origin of weights: its title in messages, and the conversion to hrseg's names."""

    title: str
    to_hrseg: Callable[[State], Renamed]


def _from_official(state: State) -> Renamed:
    """Rename `conv1...` to `backbone.conv1...`, and `last_layer...` to `head.last_layer...`."""
    in_backbone = re.compile(r"((conv|bn|layer|transition|stage)\d|widen)\.")
    return {
        f"backbone.{name}" if in_backbone.match(name) else f"head.{name}": tensor
        for name, tensor in state.items()
    }, []


def _from_torch04(state: State) -> Renamed:
    """Replace norm weights by |weight| + eps, as the authors' InPlaceABNSync computes with them."""
    return _from_official(state | {name: state[name].abs() + 1e-5 for name in _norms(state)})


def _from_imagenet(state: State) -> Renamed:
    kept, notes = _without(state, CLASSIFICATION, "classification head")
    return _from_official(kept)[0], notes


def _from_timm(state: State) -> Renamed:
    """Rename like the authors' ImageNet files, which timm hosts."""
    return _from_imagenet(state)


FAMILIES = {
    "official": Family("an official", _from_official),
    "official_torch04": Family("an official torch 0.4", _from_torch04),
    "imagenet": Family("an ImageNet classification", _from_imagenet),
    "timm": Family("a timm classification", _from_timm),
    "mmseg": Family("an mmseg", from_mmseg),
    "hrseg": Family("an hrseg", lambda state: (state, [])),
}
NORM_WEIGHTS = {"official": "unchanged", "official_torch04": "read as |weight| + 1e-5"}


def _network(raw: Mapping[str, Any], origin: str) -> State:
    """Return the network's tensors without the prefixes of wrapper modules."""
    tensors = _tensors(raw)
    wrapper = re.compile(rf"({WRAPPERS})(?:backbone\.)?{re.escape(MARK)}")
    match = next(filter(None, map(wrapper.fullmatch, tensors)), None)
    if match is None:
        raise ConfigError(f"{origin} contains {_unrecognised(raw, tensors)}")
    # Names without the prefix, such as `loss.criterion.weight`, do not belong to the network.
    prefix = match[1]
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    _refuse_whole_numbers(state, origin)
    return state


def _tensors(raw: Mapping[str, Any]) -> State:
    wrapped = raw.get("state_dict", raw)
    entries = wrapped.items() if isinstance(wrapped, Mapping) else ()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def _refuse_whole_numbers(tensors: State, origin: str) -> None:
    """Refuse integer weights. Without their scales, a network would compute with wrong values."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or name.endswith("num_batches_tracked")):
            raise ConfigError(
                f"{origin}: {name} is {tensor.dtype}.\n"
                "Expected: floating point. Quantized weights cannot be used without their scales.\n"
                "Fix: give the original file."
            )


def _unrecognised(raw: Mapping[str, Any], tensors: State) -> str:
    """Return a description of a file without a recognised network, and the fix."""
    parents = [key.removesuffix(MARK) for key in tensors if key.endswith(f".{MARK}")]
    if prefixes := [re.sub(r"(?<=\.)backbone\.$", "", parent) for parent in parents]:
        first = prefixes[0]
        return (
            f"HRNet weights whose keys start with {' and '.join(map(repr, prefixes))}.\n"
            "Expected: keys without this prefix.\n"
            f"Fix: `{{key.removeprefix({first!r}): t for key, t in "
            f"state_dict.items() if key.startswith({first!r})}}`"
        )
    for entry, value in raw.items():
        if isinstance(value, Mapping) and any(str(key).endswith(MARK) for key in value):
            return (
                f"HRNet weights in the entry {entry!r}.\n"
                "Expected: weights in the entry `state_dict`, or directly in the file.\n"
                "Fix: `torch.save("
                f"torch.load(file, weights_only=True)[{entry!r}], 'weights.pth')`"
            )
    return (
        f"no HRNet weights: {len(tensors)} tensors{', ' * bool(tensors)}{some(tensors)}.\n"
        f"Expected: a key {MARK}, bare or after `backbone.`, `model.` or `module.`,\n"
        "in the file or in its entry `state_dict`. Fix: give another file."
    )


def _families(state: State, filename: str) -> tuple[list[str], str]:
    """Return the possible families, the likeliest first, and the reason for an official one."""
    roots = {f"{name.partition('.')[0]}." for name in state}
    if "backbone." in roots:
        if roots & {"decode_head.", "auxiliary_head."}:
            return ["mmseg"], ""
        return ["hrseg"] if "head." in roots else ["hrseg", "mmseg"], ""
    if roots & {"incre_modules.", "classifier."}:
        # Both families have the same names. The authors published only .pth files.
        both = ["timm", "imagenet"]
        return (both if filename.endswith(".safetensors") else both[::-1]), ""
    likeliest, reason = _norm_rule(state, filename.lower())
    possible = sorted(NORM_WEIGHTS, key=lambda name: name != likeliest)
    return possible if roots & {"last_layer.", "cls_head."} else [*possible, "imagenet"], reason


def _norm_rule(state: State, filename: str) -> tuple[str, str]:
    """Return the family of an official file by its norm weights, and the reason."""
    counters = any(name.endswith("num_batches_tracked") for name in state)
    if "torch04" in filename:
        reason = "the file name contains torch04" + ", but it has batch counters" * counters
        return "official_torch04", reason
    if "torch11" in filename:
        return "official", "the file name contains torch11"
    if counters:
        return "official", "the file has batch counters"
    if negative := sum(int((state[name] < 0).sum()) for name in _norms(state)):
        reason = f"the file has no batch counters, and {negative} norm weights are negative"
        return "official_torch04", reason
    return "official", "none is negative"


def _norms(state: State) -> list[str]:
    """Return the names of the batch norms' weights."""
    layers = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return [f"{layer}weight" for layer in layers if f"{layer}weight" in state]


def _without(state: State, parts: tuple[str, ...], title: str) -> Renamed:
    """Remove the tensors of `parts`, and return a note with their number."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(parts)}
    unused = len(state) - len(kept)
    return kept, [f"{title}, {unused} tensors not used"] if unused else []
