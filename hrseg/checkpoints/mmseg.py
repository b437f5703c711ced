"""Conversion of parameter names between hrseg and mmsegmentation, for FCN and OCR heads."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrseg.errors import ConfigError

State = dict[str, Tensor]

# Prefixes of names, hrseg -> mmseg. Names in the backbone are the authors' in both.
FCN = {
    "head.last_layer.0.": "decode_head.convs.0.conv.",
    "head.last_layer.1.": "decode_head.convs.0.bn.",
    "head.last_layer.3.": "decode_head.conv_seg.",
}
_OURS = "head.ocr_distri_head.object_context_block."
_THEIRS = "decode_head.1.object_context_block."
OCR = {
    "head.aux_head.0.": "decode_head.0.convs.0.conv.",
    "head.aux_head.1.": "decode_head.0.convs.0.bn.",
    "head.aux_head.3.": "decode_head.0.conv_seg.",
    "head.conv3x3_ocr.0.": "decode_head.1.bottleneck.conv.",
    "head.conv3x3_ocr.1.": "decode_head.1.bottleneck.bn.",
    f"{_OURS}f_pixel.0.": f"{_THEIRS}query_project.0.conv.",
    f"{_OURS}f_pixel.1.0.": f"{_THEIRS}query_project.0.bn.",
    f"{_OURS}f_pixel.2.": f"{_THEIRS}query_project.1.conv.",
    f"{_OURS}f_pixel.3.0.": f"{_THEIRS}query_project.1.bn.",
    f"{_OURS}f_object.0.": f"{_THEIRS}key_project.0.conv.",
    f"{_OURS}f_object.1.0.": f"{_THEIRS}key_project.0.bn.",
    f"{_OURS}f_object.2.": f"{_THEIRS}key_project.1.conv.",
    f"{_OURS}f_object.3.0.": f"{_THEIRS}key_project.1.bn.",
    f"{_OURS}f_down.0.": f"{_THEIRS}value_project.conv.",
    f"{_OURS}f_down.1.0.": f"{_THEIRS}value_project.bn.",
    f"{_OURS}f_up.0.": f"{_THEIRS}out_project.conv.",
    f"{_OURS}f_up.1.0.": f"{_THEIRS}out_project.bn.",
    "head.ocr_distri_head.conv_bn_dropout.0.": f"{_THEIRS}bottleneck.conv.",
    "head.ocr_distri_head.conv_bn_dropout.1.0.": f"{_THEIRS}bottleneck.bn.",
    "head.cls_head.": "decode_head.1.conv_seg.",
}
# Biases of convolutions before a norm -> the norm's mean. mmseg has no such biases: they are
# folded into the mean.
BIASED = {
    f"head.{name}.0.bias": f"head.{name}.1.running_mean"
    for name in ("last_layer", "aux_head", "conv3x3_ocr")
}
RESTORE = "hrseg_restore"  # file entry with the exact original biases and means, written by hrseg


def from_mmseg(state: Mapping[str, Tensor], originals: Any = None) -> tuple[State, list[str]]:
    """Return the tensors under hrseg's names, and notes on each change.

    Args:
        state: tensors under mmseg's names.
        originals: the entry RESTORE of the same file, if any.
    """
    names = {theirs: ours for ours, theirs in {**FCN, **OCR}.items()}
    renamed = {_renamed(name, names): tensor for name, tensor in state.items()}
    originals = originals if isinstance(originals, Mapping) else {}
    notes = []
    for bias, mean in BIASED.items():
        weight = renamed.get(bias.replace(".bias", ".weight"))
        if weight is None or bias in renamed:
            continue
        if _are_originals(originals.get(bias), originals.get(mean), renamed.get(mean)):
            renamed |= {bias: originals[bias], mean: originals[mean]}
            continue
        renamed[bias] = weight.new_zeros(weight.shape[:1])
        notes.append(f"{bias} set to 0: this convolution of an mmseg head has no bias")
    return renamed, notes


def to_mmseg(state: Mapping[str, Tensor]) -> tuple[State, State]:
    """Return the tensors under mmseg's names, and the original biases and means (RESTORE).

    mmseg has no bias before a norm. A norm's mean reduced by the bias has the same effect.

    Raises:
        ConfigError: if the head is incomplete, or neither FCN nor OCR.
    """
    names = OCR if "head.cls_head.weight" in state else FCN
    head = [name for name in state if name.startswith("head.")]
    problems = [f"{name} has no equivalent" for name in head if not name.startswith(tuple(names))]
    pairs = {bias: mean for bias, mean in BIASED.items() if bias in state}
    problems += [f"{mean} is missing" for mean in pairs.values() if mean not in state]
    if problems:
        raise ConfigError(
            f"The weights cannot be converted to mmseg: {problems[0]}.\n"
            "Expected: a complete FCN or OCR head.\n"
            "Fix: `hrseg weights inspect FILE --config NAME` lists the tensors that do not fit."
        )
    folded, originals = dict(state), State()
    for bias, mean in pairs.items():
        originals |= {bias: state[bias], mean: state[mean]}
        folded[mean] = state[mean] - folded.pop(bias)
    return {_renamed(name, names): tensor for name, tensor in folded.items()}, originals


def refuse_other_heads(state: Mapping[str, Tensor], origin: str) -> None:
    """Raise ConfigError if the mmseg head is neither FCN nor OCR."""
    supported = (*FCN.values(), *OCR.values())
    for name in state:
        if name.startswith("decode_head.") and not name.startswith(supported):
            raise ConfigError(
                f"{origin} is an mmseg file with an unsupported head ({name}).\n"
                f"Expected: an FCN head ({', '.join(part[:-1] for part in FCN.values())}),\n"
                "or an OCR head (decode_head.0 and decode_head.1).\n"
                "Fix: give a file with one of these heads."
            )


def _are_originals(bias: Any, mean: Any, folded: Any) -> bool:
    """Return whether the mean is still `mean - bias`, as `to_mmseg` wrote it."""
    if not all(isinstance(tensor, Tensor) for tensor in (bias, mean, folded)):
        return False
    return bias.shape == mean.shape == folded.shape and torch.equal(mean - bias, folded)


def _renamed(name: str, names: Mapping[str, str]) -> str:
    prefix = next(filter(name.startswith, names), "")
    return names.get(prefix, "") + name.removeprefix(prefix)
