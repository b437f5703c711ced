"""Sliding windows of a protocol, and the sizes of the prepared and scaled image."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from hrseg.utils.geometry import scaled_size

Size = tuple[int, int]
MIN_SIZE = 32  # pixels a side: the smallest input of the network
MAX_SCALED_PIXELS = 2**28  # of an image at one scale: 3 GiB
MAX_WINDOW_PIXELS = 2**33  # of all windows of an image


class Windows(NamedTuple):
    """The grid of windows over an image.

    Attributes:
        rows: the first row of each row of windows.
        columns: the first column of each column of windows.
        height: of every window, in pixels.
        width: of every window, in pixels.
    """

    rows: list[int]
    columns: list[int]
    height: int
    width: int


def prepare(image: Tensor, protocol: Protocol) -> tuple[Tensor, Size]:
    """Resize and pad an image (1, N, H, W) of uint8 or uint16.

    Returns:
        The image, and the (height, width) of its upper left part that corresponds to the ground
        truth: without the padding, or with it if the protocol does not crop the padding.

    Raises:
        ConfigError: the protocol makes too many pixels of the image.
    """
    check_cost(image.shape[-2:], protocol)
    content, padded = _prepared_sizes(image.shape[-2:], protocol)
    if protocol.resize:
        # As in the authors' code, OpenCV resizes uint8 images. PyTorch rounds differently.
        pixels = image[0].permute(1, 2, 0).contiguous().cpu().numpy()
        pixels = np.asarray(cv2.resize(pixels, content[::-1], interpolation=cv2.INTER_LINEAR))
        pixels = pixels.reshape(*content, -1)  # OpenCV drops the axis of a single channel
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(image.device)
    return pad(image, padded, protocol), content if protocol.crop_padding else padded


def pad(image: Tensor, size: Size, protocol: Protocol) -> Tensor:
    """Pad an image (1, N, H, W) of uint8 or uint16 at the bottom and right to `size`.

    RGB images of uint8 receive the colour of the protocol, others 0.
    """
    height, width = image.shape[-2:]
    if (height, width) == size:
        return image
    channels = image.shape[1]
    rgb = channels == 3 and image.dtype == torch.uint8
    color = torch.tensor(protocol.pad_color if rgb else channels * [0], device=image.device)
    padded = color.to(image.dtype).repeat(*size, 1)
    padded[:height, :width] = image[0].permute(1, 2, 0)
    return padded.permute(2, 0, 1)[None]


def padded_size(size: Sequence[int], multiple: int) -> Size:
    """Return `size` (H, W), each side rounded up to a multiple."""
    height, width = (side + -side % multiple for side in size)
    return height, width


def check_cost(size: Sequence[int], protocol: Protocol) -> None:
    """Raise ConfigError if a protocol makes too many pixels of an image of `size` (H, W)."""
    padded = _prepared_sizes(size, protocol)[1]
    shapes = [padded, *(size_at(padded, scale, protocol) for scale in protocol.scales)]
    height, width = max(shapes, key=math.prod)
    total = sum(window_pixels(size, scale, protocol) for scale in protocol.scales)
    if height * width > MAX_SCALED_PIXELS or total > MAX_WINDOW_PIXELS:
        raise ConfigError(
            f"The protocol {protocol.name} makes {width}x{height} pixels (width x height) of an "
            f"image of {size[1]}x{size[0]}, and its windows have {total:,} pixels.\n"
            f"Expected: at most {MAX_SCALED_PIXELS:,} and {MAX_WINDOW_PIXELS:,}. "
            "Fix: change inference.scales, base_size, resize, pad_multiple or stride."
        )


def size_at(size: Sequence[int], scale: float, protocol: Protocol) -> Size:
    """Return `size` (H, W) of a prepared image at a scale of the protocol, at least MIN_SIZE."""
    return scaled_size(size, scale, protocol.base_size, MIN_SIZE)


def find_windows(size: Size, scale: float, protocol: Protocol) -> Windows:
    """Return the windows of a scaled image of `size` (H, W); one window without sliding windows."""
    if not protocol.window or scale <= protocol.window_above:
        return Windows([0], [0], *size)
    stride, shift = protocol.stride or protocol.window, protocol.window_border == "shift"
    starts, sides = [], []
    for length, side, step in zip(size, protocol.window, stride, strict=True):
        steps = range(max(0, math.ceil((length - side) / step)) + 1)
        last = max(0, length - side) if shift else math.inf
        starts.append([int(min(i * step, last)) for i in steps])
        sides.append(min(side, length) if shift else side)
    return Windows(starts[0], starts[1], sides[0], sides[1])


def window_pixels(size: Sequence[int], scale: float, protocol: Protocol) -> int:
    """Return the number of pixels of all windows, mirrored ones included, of an image at a scale.

    `size` is the (height, width) of the image before the protocol prepares it.
    """
    scaled = size_at(_prepared_sizes(size, protocol)[1], scale, protocol)
    rows, columns, height, width = find_windows(scaled, scale, protocol)
    return len(rows) * len(columns) * height * width * (2 if protocol.flip else 1)


def _prepared_sizes(size: Sequence[int], protocol: Protocol) -> tuple[Size, Size]:
    """Return (height, width) of an image of `size` after `resize`, and after padding."""
    if len(protocol.resize) == 2:
        height, width = protocol.resize
    else:
        # Rounded as in `resize_short_length` of the authors' code.
        factor, short = (protocol.resize[0], min(size)) if protocol.resize else (1, 1)
        height, width = (int(side * factor / short + 0.5) for side in size)
    return (height, width), padded_size((height, width), protocol.pad_multiple)
