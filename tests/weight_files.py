"""Checkpoints of other origins, made of an official state dict."""

import torch
from torch import Tensor

from tests.golden_weights import random_state

State = dict[str, Tensor]


def prefixed(prefix: str, state: State) -> State:
    """The same tensors, each name after `prefix`."""
    return {prefix + name: tensor for name, tensor in state.items()}


def norm_weights(state: State) -> list[str]:
    """The names of the batch norms' weights: `bn1.weight`, `last_layer.1.weight`, ..."""
    return [name for name in state if name[: -len("weight")] + "running_mean" in state]


def without_counters(state: State) -> State:
    """As files of torch 0.4 are."""
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def torch04(state: State) -> State:
    """As the authors' torch 0.4 code wrote it: no counters, norm weights of both signs."""
    signed = {
        name: state[name] * torch.tensor(random_state(name).choice([-1.0, 1.0], len(state[name])))
        for name in norm_weights(state)
    }
    floats = {name: tensor.float() for name, tensor in signed.items()}
    return prefixed("model.", without_counters(state | floats)) | {
        "loss.criterion.weight": torch.ones(19)
    }


def imagenet(state: State) -> State:
    """As the authors' classification code writes it: the backbone, then its head of 126 tensors."""
    backbone = {name: t for name, t in state.items() if not name.startswith("last_layer.")}
    width = len(state["stage2.0.fuse_layers.0.1.0.weight"])
    head: State = {}
    for i, bottleneck in enumerate((32, 64, 128, 256)):
        name, channels, wide = f"incre_modules.{i}.0", width * 2**i, bottleneck * 4
        shapes = ((bottleneck, channels, 1), (bottleneck, bottleneck, 3), (wide, bottleneck, 1))
        for k, shape in enumerate(shapes, start=1):
            head |= _conv_bn(f"{name}.conv{k}", f"{name}.bn{k}", *shape)
        head |= _conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", wide, channels, 1)
    for i, channels in enumerate((128, 256, 512)):
        name = f"downsamp_modules.{i}"
        head |= _conv_bn(f"{name}.0", f"{name}.1", channels * 2, channels, 3, bias=True)
    head |= _conv_bn("final_layer.0", "final_layer.1", 2048, 1024, 1, bias=True)
    return (
        backbone
        | head
        | {
            "classifier.weight": torch.zeros(1000, 2048),
            "classifier.bias": torch.zeros(1000),
        }
    )


def mmseg(state: State) -> State:
    """As mmseg would hold the same network: the bias before a norm is part of its mean."""
    names = {
        "last_layer.0.": "decode_head.convs.0.conv.",
        "last_layer.1.": "decode_head.convs.0.bn.",
        "last_layer.3.": "decode_head.conv_seg.",
    }
    folded = state | {
        "last_layer.1.running_mean": state["last_layer.1.running_mean"] - state["last_layer.0.bias"]
    }
    del folded["last_layer.0.bias"]
    renamed = {}
    for name, tensor in folded.items():
        part = name[: len("last_layer.0.")]
        renamed[names[part] + name[len(part) :] if part in names else f"backbone.{name}"] = tensor
    return renamed


def _conv_bn(
    conv: str, bn: str, channels_out: int, channels_in: int, kernel: int, bias: bool = False
) -> State:
    one = torch.ones(channels_out)
    return {
        f"{conv}.weight": torch.zeros(channels_out, channels_in, kernel, kernel),
        **({f"{conv}.bias": one} if bias else {}),
        **{f"{bn}.{part}": one for part in ("weight", "bias", "running_mean", "running_var")},
        f"{bn}.num_batches_tracked": torch.tensor(0),
    }
