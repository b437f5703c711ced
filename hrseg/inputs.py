"""What `hrseg predict` is pointed at: files, folders, patterns; and how each is to be read."""

import glob
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from hrseg.errors import ConfigError
from hrseg.pixels import FORMATS

IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# More pixels are predicted in tiles: whole, as many take 7 GiB (W18-small-v1, 11 classes).
LARGE = 2**25
_GEOREFERENCE = (33550, 34264)  # GeoTIFF: pixel scale, transformation


@dataclass(frozen=True)
class Source:
    """A file to predict.

    Attributes:
        path: where it is.
        name: what its outputs are called, without a suffix: its stem, in a folder that was given
            with the path from there.
        kind: "image", "video", or "tiles" for what is too large to be held, or georeferenced.
    """

    path: Path
    name: str
    kind: str


def find_sources(patterns: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Return the images and videos that files, folders and patterns name, each once, in order.

    Args:
        patterns: paths; folders are searched with all below them; `*`, `?`, `[...]`, `**` match.
        leave_out: a folder whose files do not count: the outputs.

    Raises:
        ConfigError: a pattern finds nothing, or two files would have outputs of the same name.
    """
    found: dict[Path, str] = {}
    hidden = leave_out.resolve() if leave_out else None
    for pattern in patterns:
        for path, name in _find(pattern).items():
            if hidden is None or hidden not in path.resolve().parents:
                found.setdefault(path, name)
    sources = [Source(path, name, _kind(path)) for path, name in found.items()]
    by_name: dict[str, Source] = {}
    for source in sources:
        other = by_name.setdefault(source.name.lower(), source)
        if other is not source:
            raise ConfigError(
                f"{other.path} and {source.path} would both be written as {source.name}.\n"
                "Name the folder above them instead, or predict them into two folders (--out)."
            )
    return sources


def _find(pattern: str) -> dict[Path, str]:
    path = Path(pattern)
    if path.is_file():
        return {path: path.stem}
    if path.is_dir():
        found = {
            file: file.relative_to(path).with_suffix("").as_posix()
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGES + VIDEOS
            and not _is_hidden(file.relative_to(path))
            and file.is_file()  # no folder, and no pipe or device, which never ends
        }
    else:
        matches = sorted(glob.glob(pattern, recursive=True))
        found = {p: n for match in matches for p, n in _find(match).items()}
    if not found:
        what = f"no image or video below {path}" if path.is_dir() else f"no such file: {pattern}"
        raise ConfigError(
            f"{what}\nExpected {', '.join(suffix[1:] for suffix in IMAGES + VIDEOS)}."
        )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind(path: Path) -> str:
    """Return how a file is read, by its suffix and header; what cannot be opened is an image."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return "video"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                tags = getattr(image, "tag_v2", ())
        except Image.DecompressionBombError:
            return "tiles"
        except Exception:  # on damaged files Pillow raises nearly anything
            # TIFFs of kinds that Pillow does not know are GDAL's to try.
            return "tiles" if suffix in (".tif", ".tiff") else "image"
    georeferenced = any(tag in tags for tag in _GEOREFERENCE)
    return "tiles" if width * height > LARGE or georeferenced else "image"
