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
        notes: what was changed or left out on the way, a line each.
    """

    family: str
    state: State
    notes: list[str]


def recognise(raw: Mapping[str, Any], source: str, origin: str) -> Found:
    """Return the network that a checkpoint holds.

    Args:
        raw: a state dict, bare or as the entry `state_dict`.
        source: a key of FAMILIES, or "auto" to tell by the keys.
        origin: the file, for messages; its name may say which torch wrote it.

    Raises:
        ConfigError: no HRNet in it, or one of another family than asked for.
    """
    find({"auto": None, **FAMILIES}, source, "source of weights")
    if isinstance(raw.get("hrseg"), Mapping) and not any(MARK in key for key in _tensors(raw)):
        return foreign(raw, origin)
    state = _network(raw, origin)
    possible, why = _tell(state, Path(origin).name)
    family = possible[0] if source == "auto" else source
    if family not in possible:
        raise ConfigError(
            f"{origin} is {FAMILIES[possible[0]].title} file, but source is {source!r}.\n"
            f'Take source="{possible[0]}", or "auto" to tell by the keys.'
        )
    renamed, notes = FAMILIES[family].to_hrseg(state)
    if family == "mmseg":
        refuse_other_heads(state, origin)
        renamed, notes = _from_mmseg(state, raw.get(RESTORE))
    if family in NORM_WEIGHTS:
        notes = [_norm_note(family, possible[0], why), *notes]
    return Found(family, renamed, notes)


def foreign(raw: Mapping[str, Any], origin: str) -> Found:
    """Return the tensors of a network that is not an HRNet, whose names are its own.

    A file without `backbone.` and `head.` in its names is taken for a backbone alone.
    """
    tensors = _tensors(raw)
    names = {key: re.match(rf"{WRAPPERS}((?:backbone|head)\..*)", key) for key in tensors}
    state = {match[1]: tensors[key] for key, match in names.items() if match}
    state = state or {f"backbone.{key}": tensor for key, tensor in tensors.items()}
    _refuse_whole_numbers(state, origin)
    return Found("hrseg", state, [])


class Family(NamedTuple):
    """One origin of weights: what to call its files, and the way to the names of hrseg."""

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
    """Their InPlaceABNSync computes with |weight| + eps, where a batch norm takes the weight."""
    return _from_official(state | {name: state[name].abs() + 1e-5 for name in _norms(state)})


def _from_imagenet(state: State) -> Renamed:
    return _without(_from_official(state)[0], "head.", CLASSIFICATION, "classification head")


def _from_timm(state: State) -> Renamed:
    """The authors' ImageNet names; timm's network sums its streams in another way."""
    renamed, notes = _from_imagenet(state)
    said = "timm interpolates its streams by nearest neighbour, this network bilinearly: train on"
    return renamed, [*notes, said]


def _from_mmseg(state: State, kept: Any = None) -> Renamed:
    state, notes = _without(state, "", ("auxiliary_head.",), "auxiliary head")
    renamed, more = from_mmseg(state, kept)
    return renamed, [*notes, *more]


FAMILIES = {
    "official": Family("an official", _from_official),
    "official_torch04": Family("an official torch 0.4", _from_torch04),
    "imagenet": Family("an ImageNet classification", _from_imagenet),
    "timm": Family("a timm classification", _from_timm),
    "mmseg": Family("an mmseg", _from_mmseg),
    "hrseg": Family("an hrseg", lambda state: (state, [])),
}
NORM_WEIGHTS = {"official": "taken as they are", "official_torch04": "read as |weight| + 1e-5"}


def _network(raw: Mapping[str, Any], origin: str) -> State:
    """Return the network's tensors without the prefixes of what was wrapped around it."""
    tensors = _tensors(raw)
    wrapper = re.compile(rf"({WRAPPERS})(?:backbone\.)?{re.escape(MARK)}")
    match = next(filter(None, map(wrapper.fullmatch, tensors)), None)
    if match is None:
        raise ConfigError(f"{origin} holds {_otherwise(raw, tensors)}")
    # Outside the prefix stands what is not the network, as `loss.criterion.weight`.
    inside = [name for name in tensors if name.startswith(match[1])]
    _refuse_whole_numbers({name: tensors[name] for name in inside}, origin)
    return {name[len(match[1]) :]: tensors[name] for name in inside}


def _tensors(raw: Mapping[str, Any]) -> State:
    wrapped = raw.get("state_dict", raw)
    entries = wrapped.items() if isinstance(wrapped, Mapping) else ()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def _refuse_whole_numbers(tensors: State, origin: str) -> None:
    """Refuse weights that are no floating point: copied into a network they are other numbers."""
    for name, tensor in tensors.items():
        if not (tensor.is_floating_point() or name.endswith("num_batches_tracked")):
            raise ConfigError(
                f"{origin}: {name} is {tensor.dtype}, expected floating point.\n"
                "Quantized weights are no weights without their scales: give the original file."
            )


def _otherwise(raw: Mapping[str, Any], tensors: State) -> str:
    """Say what a file holds in which no network was found, and the repair."""
    if renamed := _renamed(tensors):
        return f"HRNet weights, but its keys {renamed}"
    for entry, value in raw.items():
        if isinstance(value, Mapping) and any(str(key).endswith(MARK) for key in value):
            return (
                f"its HRNet weights in the entry {entry!r}, expected `state_dict` or the file "
                "itself.\nSave that entry alone: "
                f"torch.save(torch.load(file, weights_only=True)[{entry!r}], 'weights.pth')."
            )
    return (
        f"no HRNet weights: {len(tensors)} tensors{', ' * bool(tensors)}{some(tensors)}.\n"
        f"Expected a key {MARK}, bare, after `backbone.`, `model.` or `module.`,\n"
        "in the file itself or in its entry `state_dict`. Give another file."
    )


def _renamed(tensors: State) -> str:
    """Say which prefix stands before the keys of an HRNet, or was cut off too much."""
    before = [key.removesuffix(MARK) for key in tensors if key.endswith(f".{MARK}")]
    if prefixes := [re.sub(r"(?<=\.)backbone\.$", "", prefix) for prefix in before]:
        first = prefixes[0]
        return (
            f"start with {' and '.join(map(repr, prefixes))}: remove this prefix.\n"
            f"For example {{key.removeprefix({first!r}): t for key, t in state_dict.items() "
            f"if key.startswith({first!r})}}."
        )
    if cut := next((key for key in tensors if "fuse_layers" in key and MARK.endswith(key)), ""):
        return (
            f"have lost their first {len(MARK) - len(cut)} characters: {cut}.\n"
            "A prefix was removed that was not there. Give the file from before that."
        )
    return ""


def _tell(state: State, filename: str) -> tuple[list[str], str]:
    """Return the families that the keys allow, the likeliest first; for an official one, why."""
    roots = {f"{name.partition('.')[0]}." for name in state}
    if "backbone." in roots:
        if roots & {"decode_head.", "auxiliary_head."}:
            return ["mmseg"], ""
        return ["hrseg"] if "head." in roots else ["hrseg", "mmseg"], ""
    if roots & {"incre_modules.", "classifier."}:
        # The same names; the authors published .pth files alone.
        both = ["timm", "imagenet"]
        return (both if filename.endswith(".safetensors") else both[::-1]), ""
    likeliest, why = _norm_rule(state, filename.lower())
    possible = sorted(NORM_WEIGHTS, key=lambda name: name != likeliest)
    return possible if roots & {"last_layer.", "cls_head."} else [*possible, "imagenet"], why


def _norm_rule(state: State, filename: str) -> tuple[str, str]:
    """Tell whether the norms of an official file are of torch 0.4, and by what."""
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


def _norm_note(family: str, likeliest: str, why: str) -> str:
    note = f"norm weights {NORM_WEIGHTS[family]}"
    if family == likeliest:
        return f"{note}: {why}"
    return f'warning: {note}, as asked; source="auto" has them {NORM_WEIGHTS[likeliest]}: {why}'


def _norms(state: State) -> list[str]:
    """Return the names of the batch norms' weights."""
    layers = [name.removesuffix("running_mean") for name in state if name.endswith("running_mean")]
    return [f"{layer}weight" for layer in layers if f"{layer}weight" in state]


def _without(state: State, before: str, parts: tuple[str, ...], what: str) -> Renamed:
    """Leave out the tensors of `parts`, and say how many they are."""
    starts = tuple(before + part for part in parts)
    kept = {name: tensor for name, tensor in state.items() if not name.startswith(starts)}
    unused = len(state) - len(kept)
    return kept, [f"{what}, {unused} tensors not used"] if unused else []
