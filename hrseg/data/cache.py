"""Cache of decoded images and masks in memory-mapped shards.

The first line of `index.jsonl` has the format and the identity of the mask reader. Each other line
is an `Entry`. `cache_writer.py` writes the cache.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from hrseg.data.checksums import digest_of
from hrseg.data.images import Array, decoder_errors
from hrseg.data.masks import ReadMask
from hrseg.errors import ConfigError, DataError
from hrseg.utils.channels import Channels, Pixels
from hrseg.utils.constants import IGNORE_INDEX

Pair = tuple[Path, Path | None]
_Count = Annotated[int, Field(ge=0)]

INDEX, FORMAT = "index.jsonl", 2  # format 1 had no EXIF orientations


@dataclass(frozen=True)
class Entry:
    """Image and mask in the cache.

    At byte `offset` the shard has the image (H, W, N), then the train ids (H, W).

    Attributes:
        files: image and mask, relative to the data set's root if below it.
        stats: (bytes, modification time in ns) of each file.
        sources: sha256 of each file.
        size: (height, width) of the image.
        shard: number of the shard.
        offset: first byte in the shard.
        content: sha256 of the bytes in the shard.
        pixel_bytes: bytes of a pixel of the image: 3 for RGB uint8, which indexes leave out.
    """

    files: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    stats: tuple[tuple[int, int], ...]
    sources: tuple[str, ...]
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    shard: _Count
    offset: _Count
    content: str = ""
    pixel_bytes: Annotated[int, Field(ge=1)] = 3

    @property
    def length(self) -> int:
        """Number of bytes in the shard."""
        return self.size[0] * self.size[1] * (self.pixel_bytes + len(self.files) - 1)


class Cache:
    """Reader of a cache; each process opens the shards that it needs."""

    def __init__(
        self, folder: Path, root: Path, read_mask: ReadMask, channels: Channels | None = None
    ) -> None:
        """Read the index of a cache that `write_cache` wrote of the data set at `root`.

        Raises:
            ConfigError: the cache is missing, of another format, or of other masks.
            DataError: the index is damaged.
        """
        self.folder, self.root = folder, root
        self.dtype = np.dtype(channels.dtype if channels else np.uint8)
        self.pixel_bytes = (channels.count if channels else 3) * self.dtype.itemsize
        if not (folder / INDEX).is_file():
            raise ConfigError(
                f"{folder.absolute()} is not a cache of decoded images.\n"
                "Expected: a folder written by `hrseg data cache`.\n"
                "Fix: run `hrseg data cache` with this data.cache, or set data.cache=null."
            )
        self.entries = _read_index(folder, header(read_mask, channels))
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}

    def check(self, files: Sequence[Pair]) -> None:
        """Raise DataError unless the cache contains the current state of these pairs."""
        missing = [pair for pair in files if not self.contains(pair)]
        if missing:
            changed = " (changed since)" * (self.key(missing[0])[0] in self.entries)
            raise DataError(
                f"{len(missing)} of {len(files)} images are not in the cache {self.folder} "
                f"in their current state, e.g. {missing[0][0]}{changed}.\n"
                "Expected: a cache of all images.\n"
                "Fix: update it: `hrseg data cache` with the same config and data.cache."
            )
        for shard in {self.entry(pair[0]).shard for pair in files}:
            self._map(shard)

    def contains(self, pair: Pair, exactly: bool = False) -> bool:
        """Return whether the cache contains the current state of a pair's files.

        If only the time of a file differs, compare the content, unless `exactly`.
        """
        entry = self.entries.get(self.key(pair)[0])
        if entry is None or entry.files != self.key(pair):
            return False
        stats = stats_of(pair)
        if stats == entry.stats or exactly:
            return stats == entry.stats
        sizes = [size for size, _ in stats] == [size for size, _ in entry.stats]
        return sizes and sources_of(pair) == entry.sources

    def read(self, image: Path) -> tuple[Pixels, Array]:
        """Return image (H, W, N) and train ids (H, W), read-only and memory-mapped."""
        entry = self.entry(image)
        (height, width), pixels = entry.size, entry.size[0] * entry.size[1]
        data = self.data(entry)
        end = pixels * entry.pixel_bytes
        values = data[:end].view(self.dtype).reshape(height, width, -1)
        if len(entry.files) == 1:
            return values, np.full((height, width), IGNORE_INDEX, np.uint8)
        return values, data[end:].reshape(height, width)

    def key(self, pair: Pair) -> tuple[str, ...]:
        """Return the paths, relative to the root if below it: data set and cache can move."""
        paths, root = [path.absolute() for path in pair if path], self.root.absolute()
        return tuple(
            (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
            for path in paths
        )

    def entry(self, image: Path) -> Entry:
        """Return the entry of an image in the cache."""
        return self.entries[self.key((image, None))[0]]

    def data(self, entry: Entry) -> Array:
        """Return the bytes of an entry, memory-mapped."""
        return np.frombuffer(self._map(entry.shard), np.uint8, entry.length, entry.offset)

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            path = shard_path(self.folder, shard)
            end = max(e.offset + e.length for e in self.entries.values() if e.shard == shard)
            size = path.stat().st_size if path.is_file() else 0
            if size < end:
                raise DataError(
                    f"{path} has {size:,} bytes: it was cut off.\nExpected: {end:,} bytes.\n"
                    f"Fix: remove {self.folder} and run `hrseg data cache` again."
                )
            with path.open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]


def _read_index(folder: Path, expected: str) -> dict[str, Entry]:
    path = folder / INDEX
    head, *lines = path.read_text("utf-8").split("\n")[:-1] or [""]
    if head != expected:
        raise ConfigError(
            f"{path} does not fit this config.\nExpected: the index of a cache of this hrseg "
            "version, with the same classes, ids and colours, of the same channels.\n"
            "Fix: write another cache: `hrseg data cache` with data.cache=ANOTHER_FOLDER."
        )
    parse, entries = TypeAdapter(Entry).validate_json, {}
    for number, line in enumerate(lines, 2):
        try:
            entry = parse(line)
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number} is damaged.\nExpected: the file as written.\n"
                f"Fix: remove {folder} and run `hrseg data cache` again."
            ) from error
        entries[entry.files[0]] = entry
    return entries


def header(read_mask: ReadMask, channels: Channels | None = None) -> str:
    """Return the first line of an index: format, hash of the mask reader's identity, channels.

    Raises:
        ConfigError: the mask reader has no identity.
    """
    identity = getattr(read_mask, "identity", None)
    if identity is None:
        raise ConfigError(
            f"{read_mask!r} has no `identity`, so a cache of its masks cannot be checked.\n"
            "Expected: a string that changes with the ids. Fix: add it, or leave out data.cache."
        )
    digest = hashlib.sha256(str(identity).encode()).hexdigest()
    content: dict[str, Any] = {"hrseg_cache": FORMAT, "masks": digest}
    if channels is not None:
        content["bands"], content["kind"] = channels.bands, channels.kind
        if channels.kind == "float32":
            content["ranges"] = channels.ranges  # values are mapped when files are read
    return json.dumps(content)


def stats_of(pair: Pair) -> tuple[tuple[int, int], ...]:
    """Return bytes and modification time in ns of each file."""
    stats = []
    for path in filter(None, pair):
        with decoder_errors(path):
            stats.append(path.stat())
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


def sources_of(pair: Pair) -> tuple[str, ...]:
    """Return the sha256 of each file."""
    return tuple(digest_of(path) for path in filter(None, pair))


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a shard."""
    return folder / f"shard-{number:05}.bin"
