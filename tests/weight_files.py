"""Weights files of other families, converted from an official state dict."""

import torch
from safetensors.torch import save

from tests.golden_weights import official_weights, random_state


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def norm_weights(state):
    """Return the names of the batch norms' weights: `bn1.weight`, `last_layer.1.weight`, ..."""
    return [name for name in state if name.removesuffix("weight") + "running_mean" in state]


def without_counters(state):
    """Return a state as in files of torch 0.4."""
    return {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}


def torch04(state):
    """Return a file of the authors' torch 0.4 code: no counters, norm weights of both signs."""
    signed = {
        name: state[name] * torch.tensor(random_state(name).choice([-1.0, 1.0], len(state[name])))
        for name in norm_weights(state)
    }
    floats = {name: tensor.float() for name, tensor in signed.items()}
    named = prefixed("model.", without_counters(state | floats))
    return named | {"loss.criterion.weight": torch.ones(19)}


def imagenet(state):
    """Return a file of the authors' classification code: the backbone and a head of 126 tensors."""
    file = {name: t for name, t in state.items() if not name.startswith("last_layer.")}
    width = len(state["stage2.0.fuse_layers.0.1.0.weight"])
    for i, narrow in enumerate((32, 64, 128, 256)):
        name, channels, wide = f"incre_modules.{i}.0", width * 2**i, narrow * 4
        shapes = ((narrow, channels, 1), (narrow, narrow, 3), (wide, narrow, 1))
        for k, shape in enumerate(shapes, start=1):
            file |= _conv_bn(f"{name}.conv{k}", f"{name}.bn{k}", *shape)
        file |= _conv_bn(f"{name}.downsample.0", f"{name}.downsample.1", wide, channels, 1)
    for i, channels in enumerate((128, 256, 512)):
        name = f"downsamp_modules.{i}"
        file |= _conv_bn(f"{name}.0", f"{name}.1", channels * 2, channels, 3, bias=True)
    file |= _conv_bn("final_layer.0", "final_layer.1", 2048, 1024, 1, bias=True)
    classifier = {"weight": torch.zeros(1000, 2048), "bias": torch.zeros(1000)}
    return file | prefixed("classifier.", classifier)


def imagenet_file(variant):
    """Return the bytes of timm's file for a variant, which is without `hrnet_`."""
    tensors = imagenet(official_weights(variant))
    return save({name: tensor.clone() for name, tensor in tensors.items()})


def mmseg(state):
    """Return a file of mmseg: the bias before a norm layer becomes a part of its mean."""
    names = {"0": "convs.0.conv", "1": "convs.0.bn", "3": "conv_seg"}
    renamed = {}
    for name, tensor in state.items():
        if name == "last_layer.1.running_mean":
            tensor = tensor - state["last_layer.0.bias"]
        _, _, rest = name.partition("last_layer.")
        number, _, part = rest.partition(".")
        renamed[f"decode_head.{names[number]}.{part}" if rest else f"backbone.{name}"] = tensor
    del renamed["decode_head.convs.0.conv.bias"]
    return renamed


def _conv_bn(conv, bn, channels_out, channels_in, kernel, bias=False):
    one = torch.ones(channels_out)
    return {
        f"{conv}.weight": torch.zeros(channels_out, channels_in, kernel, kernel),
        **({f"{conv}.bias": one} if bias else {}),
        **{f"{bn}.{part}": one for part in ("weight", "bias", "running_mean", "running_var")},
        f"{bn}.num_batches_tracked": torch.tensor(0),
    }
