"""Writer of an imported data set: images, palette PNG masks, classes.txt and import.json."""

import os
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from hrseg.data.formats.annotations import UNLABELLED, Annotation, Annotations, IntArray, fault
from hrseg.data.formats.output import Classes, output_names, relative, repeated_images
from hrseg.data.formats.raster import draw
from hrseg.data.images import SUFFIXES, header_size, open_image
from hrseg.utils.console import track
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import FULL, PARTIAL, cannot_write, write_json
from hrseg.utils.system import processors
from hrseg.utils.text import one_line

Counts = npt.NDArray[np.int64]


@dataclass
class Import:
    """Summary of an import.

    Attributes:
        pixels: number of pixels of each id, and of 255.
        images: number of images of each split.
        files: rows of import.json.
        warnings: texts for the user, one line each.
    """

    pixels: Counts = field(default_factory=lambda: np.zeros(256, np.int64))
    images: Counter[str] = field(default_factory=Counter)
    files: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlabelled: int = 0  # pixels
    empty_images: int = 0  # images without a labelled pixel
    empty_shapes: int = 0  # objects without a pixel

    def add(self, counts: Counts, unlabelled: int, empty_shapes: int) -> None:
        """Add the numbers of an image: pixels of each id, unlabelled pixels, empty shapes."""
        self.pixels += counts
        self.unlabelled += unlabelled
        self.empty_images += unlabelled == counts.sum()
        self.empty_shapes += empty_shapes


@dataclass(frozen=True)
class _Target:
    """The source folder, the temporary output folder, and the classes of the masks."""

    source: Path
    folder: Path
    names: tuple[str, ...]  # of the annotations
    classes: Classes

    def write(self, item: Annotation, name: str) -> tuple[Counts, int, int]:
        """Write image and mask.

        Returns:
            The numbers of pixels of each id, of unlabelled pixels, and of shapes without a pixel.
        """
        height, width = self._write_image(item, self.folder / "images" / name)
        values, empty = _values(item, height, width, self.names)
        ids = self.classes.table[values + 1]
        mask = (self.folder / "masks" / name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        colors = np.zeros((256, 3), np.uint8)
        colors[: len(self.classes.palette)] = self.classes.palette
        picture = Image.fromarray(ids)
        picture.putpalette(colors.tobytes())
        picture.save(mask)
        counts = np.bincount(ids.ravel(), minlength=256)
        return counts, int(np.count_nonzero(values == UNLABELLED)), empty

    def _write_image(self, item: Annotation, path: Path) -> tuple[int, int]:
        """Write the image; return its (height, width) as it is read with this annotation.

        Photos are turned by their EXIF orientation, unless the annotated size is the stored size.
        """
        if item.image.suffix.lower() not in SUFFIXES:
            raise fault(item.source, f"the image {one_line(item.image.name)} has another format",
                        f"files {', '.join(SUFFIXES)}", "convert the images.")  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        if item.data is None:
            size = header_size(item.image, item.size)
            _link(item.image, path)
        else:
            data = item.data()
            with open_image(item.source, data):
                path.write_bytes(data)
            size = header_size(path, item.size)
        if item.size is not None and item.size != size:
            stated, stored = (f"{height}x{width}" for height, width in (item.size, size))
            raise fault(
                item.source,
                f"the image {one_line(item.image.name)} has {stored} pixels, but its annotation "
                f"is for {stated} pixels (height x width)",
                "the image that was annotated",
                "restore this image, or export the annotations again.",
            )
        return size


def write(
    annotations: Annotations, classes: Classes, source: Path, out: Path, about: dict[str, str]
) -> Import:
    """Write the data set to a temporary folder beside `out`, and rename it at the end.

    Args:
        annotations: the data set.
        classes: of `final_classes`.
        source: folder of the annotations.
        out: new or empty folder.
        about: first keys of import.json.

    Raises:
        DataError: a damaged image, a shape beyond its image, or ambiguous image names.
        ConfigError: the disk is full.
    """
    names = output_names(annotations.items, source)
    result = Import(warnings=[*annotations.warnings, *repeated_images(annotations.items)])
    with _renamed_at_the_end(out) as folder, warnings.catch_warnings():
        # rasterio warns of the identity transform, which is right for photos.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        target = _Target(source, folder, annotations.class_names, classes)
        with ThreadPoolExecutor(processors()) as pool:
            try:
                written = pool.map(target.write, annotations.items, names)
                numbers = track(written, len(names), "import")
                for item, name, (counts, unlabelled, empty) in zip(
                    annotations.items, names, numbers, strict=True
                ):
                    result.add(counts, unlabelled, empty)
                    result.images[item.split] += 1
                    result.files.append(_row(item, name, source))
            finally:
                pool.shutdown(cancel_futures=True)
        result.warnings += _omissions(result, classes)
        (folder / "classes.txt").write_text("\n".join(classes.names) + "\n", encoding="utf-8")
        content = {"classes": classes.names, "warnings": result.warnings, "images": result.files}
        write_json(folder / "import.json", about | content)
    return result


def _values(
    item: Annotation, height: int, width: int, names: tuple[str, ...]
) -> tuple[IntArray, int]:
    """Return the position in `names` of each pixel, -1 or 255, and the number of empty shapes."""
    if item.ids is None:
        shapes = item.shapes(height, width) if item.shapes else ()
        positions = {name: position for position, name in enumerate(names)}
        return draw(shapes, height, width, positions, item.source)
    values = item.ids(height, width)
    if values.shape != (height, width):
        shapes_text = " and ".join("x".join(map(str, s)) for s in (values.shape, (height, width)))
        raise fault(item.source, f"mask and image {one_line(item.image.name)} have {shapes_text} "
                    "pixels (height x width)", "the same size")  # fmt: skip
    wrong = (values < UNLABELLED) | ((values >= len(names)) & (values != IGNORE_INDEX))
    if wrong.any():
        raise fault(item.source, f"the mask has the value {values[wrong][0]}",
                    f"values of the {len(names)} classes")  # fmt: skip
    return values, 0


def _row(item: Annotation, name: str, source: Path) -> dict[str, str]:
    """Return the entry of an image in import.json."""
    return {
        "image": f"images/{name}",
        "mask": f"masks/{os.path.splitext(name)[0]}.png",
        "source_image": relative(item.image, source),
        "annotation": relative(item.source, source),
    }


def _omissions(result: Import, classes: Classes) -> list[str]:
    """Return warnings on a single class, and on images and objects without pixels."""
    lines, ignored = [], classes.table[0] == IGNORE_INDEX
    if len(classes.names) == 1 and ignored:
        lines.append(
            "there is one class, and the other pixels are ignored: a model cannot learn where it "
            "ends; use --unlabelled background"
        )
    if result.empty_images:
        meaning = "ignored" if ignored else "background"
        lines.append(
            f"{result.empty_images} images have no labelled pixel: all their pixels are {meaning}"
        )
    if result.empty_shapes:
        lines.append(f"{result.empty_shapes} objects contain no centre of a pixel: they are lost")
    if result.images[""] and len(result.images) > 1:
        lines.append(f"{result.images['']} images belong to no split: `hrseg init` leaves them out")
    return lines


@contextmanager
def _renamed_at_the_end(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `out`; rename it to `out`, or remove it after an error."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{out.name}-", dir=out.parent))
    try:
        folder.chmod(0o777 & ~_umask())
        yield folder
        if out.exists():
            out.rmdir()  # empty
        folder.rename(out)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise cannot_write(out, str(error)) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _link(image: Path, path: Path) -> None:
    """Make a hard link to an image, or a copy on another file system."""
    try:
        os.link(image.resolve(), path)
    except OSError:
        shutil.copyfile(image, path)
