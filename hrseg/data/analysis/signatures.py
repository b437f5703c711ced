"""Perceptual hashes of images (pHash), for the search of near-duplicates."""

import cv2
import numpy as np
import numpy.typing as npt

from hrseg.data.images import Array

Floats = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
RADIUS = 14  # largest number of differing bits, of 64; measured by scripts/benchmarks/leakage.py
SIMILARITY = 0.95  # smallest correlation of the low frequencies; measured there
_SIDE = 32  # pixels of the reduced picture
_FLAT = 2.0  # grey levels; the hash of a picture with less contrast is noise


def signature(image: Array) -> Floats:
    """Return the 64 lowest DCT coefficients of a picture, of length 1 and without the mean.

    The product of two signatures is the correlation of their low frequencies.

    Args:
        image: RGB, uint8 (H, W, 3).

    Returns:
        (64,); zeros for a picture without contrast.
    """
    small = cv2.resize(image, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    low = np.asarray(cv2.dct(grey)[:8, :8], np.float32).ravel()
    low[0] = 0
    length = float(np.linalg.norm(low))
    return low / np.float32(length) if length >= _FLAT * _SIDE else np.zeros_like(low)


def hashes(signatures: Floats) -> Hashes:
    """Return the 64-bit perceptual hashes (N,) of signatures (N, 64).

    A bit per coefficient: above the median or not (Zauner, "Implementation and Benchmarking of
    Perceptual Image Hash Functions", 2010).
    """
    bits = signatures > np.median(signatures[:, 1:], axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def mirrored(signatures: Floats) -> Floats:
    """Return the signatures (N, 64) of the pictures mirrored from left to right."""
    odd = np.arange(signatures.shape[1]) % 2 == 1
    return np.where(odd, -signatures, signatures)
