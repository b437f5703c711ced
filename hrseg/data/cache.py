"""Cache of decoded images and masks in memory-mapped shards.

The first line of `index.jsonl` has the format and the identity of the mask reader. Each further
line is an `Entry`. `cache_writer.py` writes it.
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
from hrseg.utils.constants import IGNORE_INDEX

Pair = tuple[Path, Path | None]
_Count = Annotated[int, Field(ge=0)]

INDEX, FORMAT = "index.jsonl", 2  # 1: without EXIF orientations


@dataclass(frozen=True)
class Entry:
    """An image and its mask in the cache; `files` are relative to the data set's root if below it.

    `stats` are (bytes, modification time in ns), `sources` the sha256 of the files, `size` is
    (height, width). From byte `offset` the shard has the image (H, W, 3), then the train ids
    (H, W); `content` is their sha256.
    """

    files: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)]
    stats: tuple[tuple[int, int], ...]
    sources: tuple[str, ...]
    size: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]
    shard: _Count
    offset: _Count
    content: str = ""

    @property
    def length(self) -> int:
        """Number of bytes."""
        return self.size[0] * self.size[1] * (3 if len(self.files) == 1 else 4)


class Cache:
    """Reader of a cache; each process opens the shards that it needs."""

    def __init__(self, folder: Path, root: Path, read_mask: ReadMask) -> None:
        """Read the index of a cache that `write_cache` made of the data set at `root`.

        Raises ConfigError for a missing cache, another format or other masks; DataError for damage.
        """
        self.folder, self.root = folder, root
        if not (folder / INDEX).is_file():
            raise ConfigError(
                f"{folder.absolute()} is not a cache of decoded images.\n"
                "Make it, `hrseg data cache` with this data.cache, or do without: data.cache=null."
            )
        self.entries = _read_index(folder, read_mask)
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without open shards, for spawned processes."""
        return {**self.__dict__, "_maps": {}}

    def check(self, files: Sequence[Pair]) -> None:
        """Raise DataError unless the cache has these pairs, as they are now."""
        missing = [pair for pair in files if not self.holds(pair)]
        if missing:
            known = self.key(missing[0])[0] in self.entries
            raise DataError(
                f"{len(missing)} of {len(files)} images are not in the cache {self.folder} as they "
                f"are now, e.g. {missing[0][0]}{' (changed since)' if known else ''}\n"
                "Bring it up to date: hrseg data cache with the same config and data.cache."
            )
        for shard in {self.entry(pair[0]).shard for pair in files}:
            self._map(shard)

    def holds(self, pair: Pair, exactly: bool = False) -> bool:
        """Return whether a pair is in the cache as its files are now.

        If only the time of a file differs, compare its content, unless `exactly`.
        """
        entry = self.entries.get(self.key(pair)[0])
        if entry is None or entry.files != self.key(pair):
            return False
        stats = stats_of(pair)
        if stats == entry.stats or exactly:
            return stats == entry.stats
        sizes = [size for size, _ in stats] == [size for size, _ in entry.stats]
        return sizes and sources_of(pair) == entry.sources

    def read(self, image: Path) -> tuple[Array, Array]:
        """Return image (H, W, 3) and train ids (H, W), read-only, mapped from the disk."""
        entry = self.entry(image)
        (height, width), pixels = entry.size, entry.size[0] * entry.size[1]
        data = self.data(entry)
        rgb = data[: 3 * pixels].reshape(height, width, 3)
        if len(entry.files) == 1:
            return rgb, np.full((height, width), IGNORE_INDEX, np.uint8)
        return rgb, data[3 * pixels :].reshape(height, width)

    def key(self, pair: Pair) -> tuple[str, ...]:
        """Return the paths relative to the root if below it, so that both can move."""
        paths, root = [path.absolute() for path in pair if path], self.root.absolute()
        return tuple(
            (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()
            for path in paths
        )

    def entry(self, image: Path) -> Entry:
        """Return the entry of an image in the cache."""
        return self.entries[self.key((image, None))[0]]

    def data(self, entry: Entry) -> Array:
        """Return the bytes of an entry, mapped from the disk."""
        return np.frombuffer(self._map(entry.shard), np.uint8, entry.length, entry.offset)

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            path = shard_path(self.folder, shard)
            end = max(e.offset + e.length for e in self.entries.values() if e.shard == shard)
            size = path.stat().st_size if path.is_file() else 0
            if size < end:
                raise DataError(
                    f"{path} has {size:,} bytes, {end:,} were written to it: it was cut off.\n"
                    f"Remove {self.folder} and make the cache again: hrseg data cache."
                )
            with path.open("rb") as file:
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._maps[shard]


def _read_index(folder: Path, read_mask: ReadMask) -> dict[str, Entry]:
    path = folder / INDEX
    head, *lines = path.read_text("utf-8").split("\n")[:-1] or [""]
    if head != header(read_mask):
        raise ConfigError(
            f"{path} is not an index of a cache of this hrseg, or its masks were read with "
            "other classes, ids or colours.\n"
            "Make another one: hrseg data cache with data.cache=ANOTHER_FOLDER."
        )
    parse, entries = TypeAdapter(Entry).validate_json, {}
    for number, line in enumerate(lines, 2):
        try:
            entry = parse(line)
        except ValidationError as error:
            raise DataError(
                f"{path}, line {number}: damaged.\nRemove {folder} and make the cache again: "
                "hrseg data cache."
            ) from error
        entries[entry.files[0]] = entry
    return entries


def header(read_mask: ReadMask) -> str:
    """Return the first line of an index: the format, and a hash of the mask reader's identity."""
    identity = getattr(read_mask, "identity", None)
    if identity is None:
        raise ConfigError(
            f"{read_mask!r} does not describe how it reads masks: a cache cannot be checked.\n"
            "Give it an `identity` string that changes with the ids, or leave data.cache out."
        )
    digest = hashlib.sha256(str(identity).encode()).hexdigest()
    return json.dumps({"hrseg_cache": FORMAT, "masks": digest})


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
