"""Training settings from the measured data and the machine, with a reason for each line."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hrseg.data.analysis.statistics import sqrt_weights
from hrseg.utils.memory import free_memory
from hrseg.utils.system import processors

STEPS = 200  # times the square root of the number of training images
RARE = 0.01  # share of the pixels
_BYTES = 1600  # per pixel of a batch, measured for the backbone of `hrseg init` in float32
_BYTES_PER_CLASS = 16  # per pixel of a batch
_CPU_PIXELS = 2**17  # of a batch, per processor: about half a second
_GPU_PIXELS = 2**22  # of a batch


@dataclass(frozen=True)
class Machine:
    """Free memory in bytes, number of processors, and whether it has a CUDA device."""

    memory: int
    processors: int
    gpu: bool

    @classmethod
    def current(cls) -> "Machine":
        """Return this machine."""
        memory, gpu = free_memory()
        return cls(memory, processors(), gpu)


@dataclass(frozen=True)
class Measured:
    """Measured properties of a data set.

    Attributes:
        train: number of training images.
        val: number of validation images.
        size: median (height, width) of the images, in pixels.
        names: names of the classes.
        shares: share of each class in the pixels, 0..1.
        aerial: whether the images are GeoTIFF files.
    """

    train: int
    val: int
    size: tuple[float, float]
    names: Sequence[str]
    shares: Sequence[float]
    aerial: bool = False

    @property
    def rare(self) -> list[str]:
        """Names of the classes with less than 1 % of the pixels."""
        pairs = zip(self.names, self.shares, strict=True)
        return [name for name, share in pairs if 0 < share < RARE]


@dataclass(frozen=True)
class Settings:
    """Suggested settings for measured data on a machine."""

    data: Measured
    machine: Machine

    @property
    def pixels(self) -> int:
        """Number of pixels of a batch, by half the free memory and the speed of the machine."""
        byte_count = _BYTES + _BYTES_PER_CLASS * len(self.data.names)
        fast = _GPU_PIXELS if self.machine.gpu else _CPU_PIXELS * max(4, self.machine.processors)
        return min(fast, self.machine.memory // 2 // byte_count)

    @property
    def crop_size(self) -> tuple[int, int]:
        """Half the median size (height, width), 256 to 512, in multiples of 32 that fit.

        It is smaller if four crops exceed the pixels of a batch.
        """
        sides = [min(max(side / 2, 256), 512, side) for side in self.data.size]
        factor = min(1.0, math.sqrt(self.pixels / 4 / math.prod(sides)))
        height, width = (max(32, int(side * factor) // 32 * 32) for side in sides)
        return height, width

    @property
    def batch_size(self) -> int:
        """Number of crops: 4, or 8 or 16 on a GPU, or all training images if there are fewer.

        On processors, more steps with 4 crops reach a higher mIoU than fewer steps with 8 in the
        same time; see the measurements in the documentation.
        """
        fitting = self.pixels // math.prod(self.crop_size)
        sizes = [size for size in (8, 16) if size <= fitting and self.machine.gpu]
        return max(1, min(max([4, *sizes]), self.data.train))

    @property
    def steps(self) -> int:
        """Number of steps, by the amount of data: 1500 to 30,000."""
        return int(min(max(STEPS * math.sqrt(self.data.train), 1500), 30_000))

    @property
    def max_epochs(self) -> int:
        """Number of epochs with these steps, 10 to 500."""
        epochs = round(self.steps / max(1, self.data.train // self.batch_size))
        return min(500, max(10, epochs))

    @property
    def epochs_per_validation(self) -> int:
        """Number of epochs between validations, for at most about a fifth of the time.

        A pixel takes a third of the time in validation, without a backward pass. At most 50
        validations limit the time for checkpoints and pictures.
        """
        whole, crop = math.prod(self.data.size), math.prod(self.crop_size)
        ratio = self.data.val * whole / (3 * max(1, self.data.train) * crop)
        return max(math.ceil(4 * ratio), math.ceil(self.max_epochs / 50))

    @property
    def class_weights(self) -> list[float]:
        """Weight of each class, sqrt(median share / share) from 0.5 to 3; 1 without pixels."""
        weights = np.nan_to_num(sqrt_weights(self.data.shares), nan=1.0)
        return [round(float(weight), 2) for weight in np.clip(weights, 0.5, 3)]

    def data_lines(self) -> list[str]:
        """Return the lines of the section data."""
        height, width = self.crop_size
        place = "GPU" if self.machine.gpu else f"{self.machine.processors} processors"
        memory = f"{self.machine.memory / 2**30:.0f} GiB of free memory"
        workers = min(8, self.machine.processors) if self.machine.gpu else 2
        return [
            f"  batch_size: {self.batch_size}  # over all devices; for {place}, {memory}",
            f"  crop_size: [{height}, {width}]  # height, width; about half the median image",
            "  scales: [0.5, 2.0]  # range of the random scale of training images",
            *self._sampling_lines(),
            *self._augmentation_lines(),
            f"  workers: {workers}",
        ]

    def _sampling_lines(self) -> list[str]:
        if not self.data.rare:
            return []
        names = ", ".join(self.data.rare[:3]) + ", ..." * (len(self.data.rare) > 3)
        reason = f"less than 1 % of the pixels: {names}"
        return [f"  class_uniform: 0.25  # a quarter of the crops around a drawn class; {reason}"]

    def _augmentation_lines(self) -> list[str]:
        mirrored = any(
            re.search(r"(?<![a-z])(left|right)(?![a-z])", name, re.I) for name in self.data.names
        )
        lines = ["  flip: 0.0  # class names contain left or right"] if mirrored else []
        if self.data.aerial:
            height, width = self.crop_size
            names = "rotate90, vflip" if height == width else "vflip"
            lines.append(f"  augment: [{names}]  # aerial images have no upright orientation")
        return lines

    def loss_lines(self) -> list[str]:
        """Return the lines of the section losses."""
        weights = self.class_weights
        if len(weights) == 2:  # weights lower the IoU of the smaller class
            reason = "inference.threshold trades precision for recall without weights"
            return [f"  - {{name: cross_entropy}}  # {reason}"]
        if max(weights) < 1.5 * min(weights):
            return ["  - {name: cross_entropy}  # the classes have similar numbers of pixels"]
        return [
            "  # A weight per class name: sqrt(median share / share), from 0.5 to 3.",
            f"  - {{name: cross_entropy, class_weights: {weights}}}",
        ]

    def trainer_lines(self) -> list[str]:
        """Return the lines of the section trainer."""
        every = self.epochs_per_validation
        epochs = -(-self.max_epochs // every) * every
        return [
            f"  max_epochs: {epochs}  # about {self.steps} steps, by {self.data.train} images",
            f"  check_val_every_n_epoch: {every}  # epochs between validations",
        ]
