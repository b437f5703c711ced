"""Weights and inputs of the golden figures (tests/golden), drawn by seeds from their names."""

import json
import zlib
from math import prod, sqrt

import numpy as np
import torch

from tests.paths import GOLDEN

CITYSCAPES_WEIGHTS = (
    *(0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023),
    *(0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507),
)


def random_state(tag):
    return np.random.RandomState(zlib.crc32(f"0:{tag}".encode()))


def official_keys(variant):
    """Return the shapes by key of the authors' state dict; `variant` is without `hrnet_`."""
    return json.loads((GOLDEN / "official_keys.json").read_text())[variant]


def official_weights(variant, num_classes=19):
    """Return an official state dict with drawn values."""
    shapes = official_keys(variant)
    for name in ("last_layer.3.weight", "last_layer.3.bias"):
        if name in shapes:
            shapes[name][0] = num_classes
    return {key: draw(key, shape) for key, shape in shapes.items()}


def image(name, height, width, batch=1):
    """Return a normalised batch (batch, 3, height, width)."""
    r = random_state(f"x{name}")
    images = [r.standard_normal((3, height, width)) for _ in range(batch)]
    return torch.tensor(np.stack(images), dtype=torch.float32)


def labels(iteration):
    """Return labels (2, 64, 96) of training step `iteration`, a tenth of them 255."""
    r = random_state(f"y{iteration}")
    y = r.randint(0, 19, (2, 8, 12)).repeat(8, 1).repeat(8, 2)
    y[r.rand(*y.shape) < 0.1] = 255
    return torch.tensor(y)


def relative_error(ours, golden):
    """Return the largest difference over the largest golden value."""
    return float(np.abs(ours.detach().numpy() - golden).max() / np.abs(golden).max())


def draw(key, shape):
    r = random_state(key)
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if len(shape) in (2, 4):
        value = r.standard_normal(shape) * sqrt(1 / prod(shape[1:]))
    elif key.endswith("running_var"):
        value = r.uniform(0.5, 1.5, shape)
    elif key.endswith(("running_mean", "bias")):
        value = r.standard_normal(shape) * 0.1
    else:
        value = r.uniform(0.4, 0.8, shape)
    return torch.tensor(value, dtype=torch.float32)
