"""Origin of a state dict, recognised by its keys, and conversion to hrseg's parameter names."""

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
MARK = "stage2.0.fuse_layers.0.1.0.weight"  # Every HRNet has it; its length is the width.
# As DataParallel, the authors' FullModel, LightningModule and torch.compile prefix.
WRAPPERS = r"(?:module\.|model\.|_orig_mod\.)*"
CLASSIFICATION = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")


class Found(NamedTuple):
    """The network in a file.

    Attributes:
        family: a key of FAMILIES.
        state: its tensors under the names of hrseg.
        notes: changes and omissions during the conversion, a line each.
    """

    family: str
    state: State
    notes: list[str]


def recognise(raw: Mapping[str, Any], source: str, origin: str) -> Found:
    """Return the network in a state dict, bare or as the entry `state_dict`.

    `source` and `origin` as of `load_weights`.

    Raises:
        ConfigError: no HRNet in it, or one of another family than `source`.
    """
    find({"auto": None, **FAMILIES}, source, "source of weights")
    if isinstance(raw.get("hrseg"), Mapping) and not any(MARK in key for key in _tensors(raw)):
        return foreign(raw, origin)
    state = _network(raw, origin)
    possible, why = _families(state, Path(origin).name)
    family = possible[0] if source == "auto" else source
    if family not in possible:
        raise ConfigError(
            f"{origin} is {FAMILIES[possible[0]].title} file, but source is {source!r}.\n"
            f'Take source="{possible[0]}", or "auto" to choose by the keys.'
        )
    if family == "mmseg":
        refuse_other_heads(state, origin)
        state, notes = _without(state, ("auxiliary_head.",), "auxiliary head")
        renamed, added = from_mmseg(state, raw.get(RESTORE))
        return Found(family, renamed, notes + added)
    renamed, notes = FAMILIES[family].to_hrseg(state)
    if family in NORM_WEIGHTS:
        note = f"norm weights {NORM_WEIGHTS[family]}"
        if family != possible[0]:
            auto = NORM_WEIGHTS[possible[0]]
            note = f'warning: {note}, as asked; source="auto" has them {auto}'
        notes = [f"{note}: {why}", *notes]
    return Found(family, renamed, notes)


def foreign(raw: Mapping[str, Any], origin: str) -> Found:
    """Return the tensors of a network that is not an HRNet, whose names are its own.

    A file without `backbone.` and `head.` in its names is read as a backbone without a head.
    """
    tensors = _tensors(raw)
    names = {key: re.match(rf"{WRAPPERS}((?:backbone|head)\..*)", key) for key in tensors}
    state = {match[1]: tensors[key] for key, match in names.items() if match}
    state = state or {f"backbone.{key}": tensor for key, tensor in tensors.items()}
    _refuse_whole_numbers(state, origin)
    return Found("hrseg", state, [])


class Family(NamedTuple):
    """An origin of weights: a phrase for messages, and the conversion to the names of hrseg."""

    title: str
    to_hrseg: Callable[[State], Renamed]


def _from_official(state: State) -> Renamed:
    """`conv1.weight` -> `backbone.conv1.weight`, `last_layer.0.weight` -> `head.last_layer...`."""
    in_backbone = re.compile(r"(conv|bn|layer|transition|stage)\d\.")
    return {
        f"backbone.{name}" if in_backbone.match(name) else f"head.{name}": tensor
        for name, tensor in state.items()
    }, []


def _from_torch04(state: State) -> Renamed:
    """Their InPlaceABNSync computes with |weight| + eps, a batch norm with the weight."""
    return _from_official(state | {name: state[name].abs() + 1e-5 for name in _norms(state)})


def _from_imagenet(state: State) -> Renamed:
    kept, notes = _without(state, CLASSIFICATION, "classification head")
    return _from_official(kept)[0], notes


def _from_timm(state: State) -> Renamed:
    """The authors' own ImageNet weights under their names, hosted by timm."""
    return _from_imagenet(state)


FAMILIES = {
    "official": Family("an official", _from_official),
    "official_torch04": Family("an official torch 0.4", _from_torch04),
    "imagenet": Family("an ImageNet classification", _from_imagenet),
    "timm": Family("a timm classification", _from_timm),
    "mmseg": Family("an mmseg", from_mmseg),
    "hrseg": Family("an hrseg", lambda state: (state, [])),
}
NORM_WEIGHTS = {"official": "taken as they are", "official_torch04": "read as |weight| + 1e-5"}


def _network(raw: Mapping[str, Any], origin: str) -> State:
    """Return the network's tensors without the prefixes of the modules around it."""
    tensors = _tensors(raw)
    wrapper = re.compile(rf"({WRAPPERS})(?:backbone\.)?{re.escape(MARK)}")
    match = next(filter(None, map(wrapper.fullmatch, tensors)), None)
    if match is None:
        raise ConfigError(f"{origin} holds {_otherwise(raw, tensors)}")
    # Names outside the prefix do not belong to the network, such as `loss.criterion.weight`.
    prefix = match[1]
    state = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    _refuse_whole_numbers(state, origin)
    return state


def _tensors(raw: Mapping[str, Any]) -> State:
    wrapped = raw.get("state_dict", raw)
    entries = wrapped.items() if isinstance(wrapped, Mapping) else ()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def _refuse_whole_numbers(tensors: State, origin: str) -> None:
    """Refuse integer weights: copied into a network they are other numbers."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or name.endswith("num_batches_tracked")):
            raise ConfigError(
                f"{origin}: {name} is {tensor.dtype}, expected floating point.\n"
                "Quantized weights need their scales. Fix: give the original file."
            )


def _otherwise(raw: Mapping[str, Any], tensors: State) -> str:
    """Return a description of a file in which no network was found, and the repair."""
    before = [key.removesuffix(MARK) for key in tensors if key.endswith(f".{MARK}")]
    if prefixes := [re.sub(r"(?<=\.)backbone\.$", "", prefix) for prefix in before]:
        first = prefixes[0]
        return (
            f"HRNet weights, but its keys start with {' and '.join(map(repr, prefixes))}: "
            f"remove this prefix.\nFor example {{key.removeprefix({first!r}): t for key, t in "
            f"state_dict.items() if key.startswith({first!r})}}."
        )
    for entry, value in raw.items():
        if isinstance(value, Mapping) and any(str(key).endswith(MARK) for key in value):
            return (
                f"its HRNet weights in the entry {entry!r}, expected `state_dict` or the file "
                "itself.\nSave only that entry: "
                f"torch.save(torch.load(file, weights_only=True)[{entry!r}], 'weights.pth')."
            )
    return (
        f"no HRNet weights: {len(tensors)} tensors{', ' * bool(tensors)}{some(tensors)}.\n"
        f"Expected a key {MARK}, bare, after `backbone.`, `model.` or `module.`,\n"
        "in the file itself or in its entry `state_dict`. Give another file."
    )


def _families(state: State, filename: str) -> tuple[list[str], str]:
    """Return the families that the keys allow, the likeliest first; for an official one, why."""
    roots = {f"{name.partition('.')[0]}." for name in state}
    if "backbone." in roots:
        if roots & {"decode_head.", "auxiliary_head."}:
            return ["mmseg"], ""
        return ["hrseg"] if "head." in roots else ["hrseg", "mmseg"], ""
    if roots & {"incre_modules.", "classifier."}:
        # The same names; the authors published .pth files only.
        both = ["timm", "imagenet"]
        return (both if filename.endswith(".safetensors") else both[::-1]), ""
    likeliest, why = _norm_rule(state, filename.lower())
    possible = sorted(NORM_WEIGHTS, key=lambda name: name != likeliest)
    return possible if roots & {"last_layer.", "cls_head."} else [*possible, "imagenet"], why


def _norm_rule(state: State, filename: str) -> tuple[str, str]:
    """Return whether the norms of an official file are of torch 0.4, and the reason."""
    counters = any(name.endswith("num_batches_tracked") for name in state)
    if "torch04" in filename:
        return "official_torch04", "it is named torch04" + ", but has batch counters" * counters
    if "torch11" in filename:
        return "official", "it is named torch11"
    if counters:
        return "official", "it has batch counters"
    if negative := sum(int((state[name] < 0).sum()) for name in _norms(state)):
        return "official_torch04", f"it has no batch counters and {negative} of them are negative"
    return "official", "none of them is negative"


def _norms(state: State) -> list[str]:
    """Return the names of the batch norms' weights."""
    layers = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return [f"{layer}weight" for layer in layers if f"{layer}weight" in state]


def _without(state: State, parts: tuple[str, ...], title: str) -> Renamed:
    """Leave out the tensors of `parts`, with a note that counts them."""
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(parts)}
    unused = len(state) - len(kept)
    return kept, [f"{title}, {unused} tensors not used"] if unused else []
