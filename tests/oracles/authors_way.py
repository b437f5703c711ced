"""Reference implementation of the authors' training and evaluation, for tests and benchmarks.

It is NCHW, eager and float32. Training samples are resized as whole images and normalised on the
CPU. Windows and mirrored images run one by one, all classes are interpolated to full size, and
NumPy counts the confusion matrix. Source: HRNet-Semantic-Segmentation,
lib/datasets/base_dataset.py, lib/core/ and lib/utils/utils.py (`get_confusion_matrix`).
"""

import random

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from hrseg.inference.windows import find_windows, prepare, size_at
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from hrseg.utils.constants import IGNORE_INDEX


def training_step(model, optimizer, image, mask):
    """Train on normalised images (B, 3, H, W) and masks (B, H, W), and return the loss."""
    logits = bilinear(model.outputs(image)["out"], mask.shape[-2:])
    loss = F.cross_entropy(logits, mask, ignore_index=IGNORE_INDEX)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def sample(image_path, mask_path, crop_size, base_size=2048, scales=None):
    """Return a training sample: the whole image resized, padded, cropped and flipped.

    Args:
        image_path: an RGB image.
        mask_path: its mask.
        crop_size: (height, width).
        base_size: the long side at scale 1, in pixels; None: the long side of the image.
        scales: (lowest, highest) scale; None: the authors' 0.5 to 2.1 in steps of 0.1.

    Returns:
        The normalised image (3, H, W) and its ids (H, W).
    """
    image, mask = cv2.imread(str(image_path)), cv2.imread(str(mask_path), cv2.IMREAD_GRAYSCALE)
    scale = random.uniform(*scales) if scales else 0.5 + random.randint(0, 16) / 10.0
    long = max(image.shape[:2])
    factor = int((base_size or long) * scale + 0.5) / long
    height, width = (int(side * factor + 0.5) for side in image.shape[:2])
    image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
    down, right = max(crop_size[0] - height, 0), max(crop_size[1] - width, 0)
    if down or right:
        border = (0, down, 0, right, cv2.BORDER_CONSTANT)
        image = cv2.copyMakeBorder(image, *border, value=(0.0, 0.0, 0.0))
        mask = cv2.copyMakeBorder(mask, *border, value=(IGNORE_INDEX,))
    y = random.randint(0, mask.shape[0] - crop_size[0])
    x = random.randint(0, mask.shape[1] - crop_size[1])
    image = image[y : y + crop_size[0], x : x + crop_size[1]]
    mask = mask[y : y + crop_size[0], x : x + crop_size[1]]
    pixels = image.astype(np.float32)[:, :, ::-1] / 255.0
    pixels -= IMAGENET_MEAN
    pixels /= IMAGENET_STD
    planes, ids = pixels.transpose((2, 0, 1)), np.array(mask).astype("int32")
    flip = np.random.choice(2) * 2 - 1
    return planes[:, :, ::flip].copy(), ids[:, ::flip].astype(np.int64)


def confusion(logits, mask):
    full = bilinear(logits, mask.shape)
    pred = np.asarray(np.argmax(full.numpy().transpose(0, 2, 3, 1), axis=3), dtype=np.uint8)
    return count(pred[0], mask, full.shape[1])


def count(pred, mask, classes):
    valid = mask != IGNORE_INDEX
    index = (mask[valid] * classes + pred[valid]).astype("int32")
    counts = np.bincount(index, minlength=classes**2)
    return counts.reshape(classes, classes).astype(np.float64)


@torch.inference_mode()
def evaluate(model, scene, protocol):
    """Return ids (H, W) of a uint8 image (1, 3, H, W), with the scales, windows and flips.

    The model and the image are on the same device.
    """
    prepared, content = prepare(scene, protocol)
    image = Normalize().to(scene.device)(prepared).contiguous()
    shape, size = image.shape[-2:], scene.shape[-2:]
    final = image.new_zeros(1, model.architecture["num_classes"], *shape)
    for scale in protocol.scales:
        scaled = bilinear(image, size_at(shape, scale, protocol))
        height, width = scaled.shape[-2:]
        windows = find_windows((height, width), scale, protocol)
        scores = image.new_zeros(1, final.shape[1], height, width)
        counts = image.new_zeros(1, 1, height, width)
        for y in windows.rows:
            for x in windows.columns:
                window = scaled[..., y : y + windows.height, x : x + windows.width].contiguous()
                area = (..., slice(y, y + windows.height), slice(x, x + windows.width))
                scores[area] += _window_scores(model, window, protocol.flip)
                counts[area] += 1
        final += bilinear(scores / counts, shape)
    final = final[..., : content[0], : content[1]]
    return bilinear(final, size).argmax(1)[0].to(torch.uint8)


def _window_scores(model, window, flip):
    """Return exp(logits) of one window, averaged with those of its mirror image."""
    logits = bilinear(model.outputs(window)["out"], window.shape[-2:])
    if flip:
        mirrored = bilinear(model.outputs(window.flip(-1))["out"], window.shape[-2:])
        logits = (logits + mirrored.flip(-1)) * 0.5
    return logits.exp()


def bilinear(x, size):
    """Interpolate bilinearly without aligned corners, like the authors."""
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
