"""Look at one image and its mask: what they hold, and what is wrong with them."""

import hashlib
import io
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from torch.utils.data import Dataset

from hrseg.data.base import Array, read_image, read_index_mask
from hrseg.data.dataset import Files
from hrseg.data.imagefile import named
from hrseg.data.worker import at
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

Counts = npt.NDArray[np.int64]
Read = Callable[[Path], Array]
Colors = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, and how to repair it."""

    file: Path
    message: str


@dataclass
class Look:
    """What one image and its mask hold.

    Attributes:
        size: (height, width) of the image; None if it cannot be read.
        digests: sha256 of each file that was read; the image comes first.
        sums: sum of each channel's values, RGB.
        squares: sum of their squares.
        counts: pixels of each train id, 256 of them; None without a mask that can be read.
        notes: what is odd but no fault, with the file.
        faults: what is wrong.
    """

    size: tuple[int, int] | None = None
    digests: dict[Path, str] = field(default_factory=dict)
    sums: tuple[int, ...] = (0, 0, 0)
    squares: tuple[int, ...] = (0, 0, 0)
    counts: Counts | None = None
    notes: list[tuple[str, Path]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Looks(Dataset[Look]):
    """A look at each file pair; a data set, so that a DataLoader's workers can share the work."""

    def __init__(self, files: Files, read_mask: Read, palette: Colors) -> None:
        """Keep the list; nothing is read yet."""
        self.files, self.read_mask, self.palette = files, read_mask, palette

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> Look:
        """Read both files whole, and return what they hold; a fault raises nothing."""
        at(index)
        image, mask = self.files[index]
        look = Look()
        _look_at_image(look, image)
        if mask is not None:
            self._look_at_mask(look, mask)
        return look

    def _look_at_mask(self, look: Look, path: Path) -> None:
        try:
            ids = self.read_mask(path)
        except DataError as error:
            message = str(error)
            if "unknown id" in message and _grey_of_colors(path, self.palette):
                message += (
                    "\nThe ids look like the grey values of the palette's colours: "
                    "export the masks as ids again."
                )
            look.faults.append(fault(path, message))
            return
        look.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        look.counts = np.bincount(ids.ravel(), minlength=256)
        if look.size is not None and look.size != ids.shape:
            (height, width), (rows, columns) = look.size, ids.shape
            wrong = f"{columns}x{rows}, its image {width}x{height} (width x height)."
            repair = "Expected the same size; export the mask again at the image's size."
            look.faults.append(Fault(path, f"{wrong}\n{repair}"))
        classes = np.count_nonzero(look.counts[:IGNORE_INDEX])
        if classes < 2:
            look.notes.append((("masks all ignored", "masks of a single class")[classes], path))


def _look_at_image(look: Look, path: Path) -> None:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = read_image(path)
    except DataError as error:
        look.faults.append(fault(path, str(error)))
        return
    look.notes += [(str(warning.message), path) for warning in said]
    data = path.read_bytes()
    look.digests[path] = hashlib.sha256(data).hexdigest()
    look.size = (image.shape[0], image.shape[1])
    # OpenCV's doubles are whole numbers but for the square of a square root in some builds' norm.
    look.sums = tuple(round(value) for value in cv2.sumElems(image)[:3])
    planes = cv2.split(image)
    look.squares = tuple(round(cv2.norm(plane, cv2.NORM_L2SQR)) for plane in planes)
    if len(set(look.squares)) == 1 and all(np.array_equal(planes[0], p) for p in planes[1:]):
        look.notes.append(("grey images", path))
    if _exif_rotates(data):
        look.notes.append(("images that EXIF would rotate, used as stored", path))


def _exif_rotates(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # Asked for EXIF that it has not met, Pillow decodes a whole PNG to look behind it.
            exif = opened.getexif() if "exif" in opened.info else {}
            return int(exif.get(ExifTags.Base.Orientation, 1)) not in (0, 1)
    except Exception:  # damaged EXIF, of which nothing is used
        return False


def _grey_of_colors(path: Path, palette: Colors) -> bool:
    """Return whether all ids are greys that the palette's colours turn into, and not by chance."""
    found = np.unique(read_index_mask(path))
    colors = np.array([*palette, (0, 0, 0), (255, 255, 255)])
    greys = np.round(colors @ np.array([0.299, 0.587, 0.114]))
    near = {int(grey) + step for grey in greys for step in (-1, 0, 1)}
    chance = (len(near) / 256) ** len(found)
    return near.issuperset(found.tolist()) and chance < 0.01


def fault(file: Path, message: str) -> Fault:
    """Return a fault without the file's name at the head of its message."""
    for head in (f"{named(file)}: ", f"{named(file)} is ", f"{named(file)} "):
        message = message.removeprefix(head)
    return Fault(file, message)
