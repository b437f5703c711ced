"""Names and options of the augmentations in `data.augment`: a pydantic model per name.

`hrseg.data.augment` builds the transforms. This module imports neither torch nor albumentations.
"""

from hrseg.utils.validation import Checked, option


class Augmentation(Checked):
    """A random transform of training crops."""

    name: str = option("name of the augmentation")
    p: float = option("probability of the transform", 0.5, ge=0, le=1)


class Rotate90(Augmentation):
    """Rotation by 0, 90, 180 or 270 degrees, for square crops."""


class VerticalFlip(Augmentation):
    """Vertical flip; the ids of mirrored classes swap (left arm, right arm)."""


class Rotate(Augmentation):
    """Rotation by a small angle; empty corners are ignored pixels."""

    limit: float = option("largest angle, in degrees", 10.0, gt=0, le=45)


class Blur(Augmentation):
    """Box blur."""

    limit: int = option("largest side of the averaged square, in pixels", 5, ge=3, le=31)


class Noise(Augmentation):
    """Gaussian noise, independent in each pixel and channel."""

    limit: float = option(
        "largest standard deviation, as a share of the value range", 0.05, gt=0, le=0.5
    )


class BrightnessContrast(Augmentation):
    """Change of brightness and contrast."""

    brightness: float = option(
        "largest change of brightness, as a share of the value range", 0.2, ge=0, le=1
    )
    contrast: float = option("largest relative change of contrast", 0.2, ge=0, le=1)


class Hue(Augmentation):
    """Rotation of the hue, for RGB images."""

    limit: float = option("largest rotation, in degrees of the colour wheel", 20.0, gt=0, le=180)


class Gamma(Augmentation):
    """Gamma curve with an exponent around 1."""

    limit: float = option("largest difference of the exponent from 1", 0.2, gt=0, le=0.9)


class Shadow(Augmentation):
    """A shadow, the shape of a random polygon, for RGB images."""

    limit: float = option("largest share of the light that the shadow takes", 0.5, gt=0, le=1)


class CoarseDropout(Augmentation):
    """Black rectangles whose pixels are ignored."""

    holes: int = option("largest number of rectangles", 8, ge=1, le=100)
    size: float = option("largest side, as a share of the crop's side", 0.1, gt=0, lt=1)


AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "rotate90": Rotate90,
    "vflip": VerticalFlip,
    "rotate": Rotate,
    "blur": Blur,
    "noise": Noise,
    "brightness_contrast": BrightnessContrast,
    "hue": Hue,
    "gamma": Gamma,
    "shadow": Shadow,
    "coarse_dropout": CoarseDropout,
}
NEEDS_SQUARE = ("rotate90",)
NEEDS_RGB = ("hue", "shadow")  # three channels of 8 bits
