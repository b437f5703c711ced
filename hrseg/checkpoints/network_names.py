"""Name of the network in a state dict: width, head, output and fusions."""

import re

from torch import Tensor

from hrseg.checkpoints.origins import MARK, State
from hrseg.models.hrnet import OUTPUTS, VARIANTS

FUSION = re.compile(r"backbone\.stage([234])\.(\d+)\.fuse_layers\.([0-3])\.")


def describe(state: State) -> str:
    """Return the name of a network, for example "HRNetV2-W48 with 19 classes"."""
    if f"backbone.{MARK}" not in state:
        return f"network other than an HRNet, with {len(state)} tensors"
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
    output, exchange = _output(state), _exchange(state)
    version, suffix = (f"V{output[1:]}", "") if output[0] == "v" else ("", f", output {output}")
    suffix += "" if exchange == "all" else f", exchange {exchange}"
    return f"HRNet{version}-{name} {head}{suffix}"


def _output(state: State) -> str:
    """Return the output of the backbone, a key of OUTPUTS, by the fusions of the last module."""
    if any(key.startswith("backbone.widen.") for key in state):
        return "v1h"
    fusions = [match.groups() for match in map(FUSION.match, state) if match]
    last = max((int(module) for stage, module, _ in fusions if stage == "4"), default=0)
    streams = {int(stream) for *module, stream in fusions if module == ["4", str(last)]}
    names = {frozenset(streams): name for name, streams in OUTPUTS.items() if name != "v1h"}
    return names.get(frozenset(streams), "v1")


def _exchange(state: State) -> str:
    """Return the fusions of the backbone, a key of EXCHANGES."""
    branch = re.compile(r"backbone\.stage([234])\.(\d+)\.branches\.")
    modules = {match.groups() for match in map(branch.match, state) if match}
    fused = {match.groups()[:2] for match in map(FUSION.match, state) if match}
    if modules <= fused:
        return "all"
    return "stages" if ("2", "0") in fused else "final"


def _rows(tensor: Tensor) -> int:
    return tensor.shape[0] if tensor.dim() else 0
