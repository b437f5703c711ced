"""Decoded images and masks in memory-mapped shards: a training crop reads its own pixels alone.

`index.jsonl` has a line per pair: its files with size, time and sha256, where its bytes lie, and
their sha256. A line is written once the bytes are on the disk, so that a writer that was killed
goes on where it stopped. The first line says the format and how masks were read.
"""

import hashlib
import json
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.atomic import replacing
from hrseg.data.base import IGNORE, Array, ReadMask, header_size, read_image
from hrseg.errors import ConfigError, DataError

Pair = tuple[Path, Path | None]
Track = Callable[[Iterable["Entry"], int], Iterable["Entry"]]

INDEX, FORMAT = "index.jsonl", 1
PAGE = 4096  # pairs begin on a page of memory
SHARD = 2**31  # bytes
BATCH = 16  # pairs between two waits for the disk


@dataclass(frozen=True)
class Entry:
    """A pair in the cache.

    Attributes:
        files: image and mask (if there is one), below the data set's root where they lie there.
        stats: (bytes, time of change in ns) of each.
        sources: sha256 of each.
        size: (height, width).
        shard: number of the file with the pixels.
        offset: where in it they begin: the image (H, W, 3), then the train ids (H, W).
        content: sha256 of these bytes.
    """

    files: tuple[str, ...]
    stats: tuple[tuple[int, int], ...]
    sources: tuple[str, ...]
    size: tuple[int, int]
    shard: int
    offset: int
    content: str = ""

    @property
    def length(self) -> int:
        """How many bytes it has."""
        return self.size[0] * self.size[1] * (3 if len(self.files) == 1 else 4)

    @classmethod
    def parse(cls, line: str) -> "Entry":
        """Read a line of the index; ValueError, KeyError or TypeError if it is none."""
        found = json.loads(line)
        found["stats"] = tuple((int(size), int(time)) for size, time in found["stats"])
        for key in ("files", "sources", "size"):
            found[key] = tuple(found[key])
        return cls(**found)


class Cache:
    """Reads pairs from a cache. Opens its shards when they are needed, in each process anew."""

    def __init__(self, folder: Path, root: Path, read_mask: ReadMask) -> None:
        """Read the index of a cache that `write_cache` made of the data set at `root`.

        Raises:
            ConfigError: no cache, of another format, or of masks that were read otherwise.
        """
        self.folder, self.root = folder, root
        if not (folder / INDEX).is_file():
            raise ConfigError(
                f"{folder.absolute()} is no cache of decoded images.\n"
                f"Make it: hrseg data cache --config ... data.cache={folder}"
            )
        self.entries = _read_index(folder, read_mask)
        self._maps: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open shards behind where a process is started."""
        return {**self.__dict__, "_maps": {}}

    def check(self, files: Sequence[Pair]) -> None:
        """Raise DataError unless the cache holds these pairs, as they are now."""
        missing = [pair for pair in files if not self.holds(pair)]
        if missing:
            known = _key(missing[0], self.root)[0] in self.entries
            raise DataError(
                f"{len(missing)} of {len(files)} images are not in the cache {self.folder} as they "
                f"are now, e.g. {missing[0][0]}{' (changed since)' if known else ''}\n"
                "Bring it up to date: hrseg data cache with the same config and data.cache."
            )
        for shard in {self._entry(pair[0]).shard for pair in files}:
            self._map(shard)

    def holds(self, pair: Pair) -> bool:
        """Tell whether a pair is there, with its files as they are now."""
        entry = self.entries.get(_key(pair, self.root)[0])
        if entry is None or entry.files != _key(pair, self.root):
            return False
        stats = _stats(pair)
        if stats == entry.stats:
            return True
        sizes = [size for size, _ in stats] == [size for size, _ in entry.stats]
        return sizes and _sources(pair) == entry.sources

    def read(self, image: Path) -> tuple[Array, Array]:
        """Return image (H, W, 3) and train ids (H, W), read-only, mapped from the disk."""
        entry = self._entry(image)
        (height, width), pixels = entry.size, entry.size[0] * entry.size[1]
        data = np.frombuffer(self._map(entry.shard), np.uint8, entry.length, entry.offset)
        rgb = data[: 3 * pixels].reshape(height, width, 3)
        if len(entry.files) == 1:
            return rgb, np.full((height, width), IGNORE, np.uint8)
        return rgb, data[3 * pixels :].reshape(height, width)

    def is_whole(self, entry: Entry) -> bool:
        """Tell whether the bytes of a pair are those that were written."""
        data = np.frombuffer(self._map(entry.shard), np.uint8, entry.length, entry.offset)
        return hashlib.sha256(data.data).hexdigest() == entry.content

    def _entry(self, image: Path) -> Entry:
        return self.entries[_key((image, None), self.root)[0]]

    def _map(self, shard: int) -> mmap.mmap:
        if shard not in self._maps:
            path = _shard(self.folder, shard)
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


def write_cache(
    folder: Path,
    root: Path,
    files: Sequence[Pair],
    read_mask: ReadMask,
    workers: int = 1,
    track: Track = lambda entries, total: entries,
) -> int:
    """Bring a cache up to date; return how many pairs were decoded or looked at again.

    Args:
        folder: of the cache; what it holds already is kept.
        root: of the data set.
        files: (image, mask) paths.
        read_mask: path -> (H, W) train ids.
        workers: threads; decoding lets them run side by side.
        track: wraps the entries as they come, for a progress bar.

    Raises:
        DataError: a file that cannot be read; what is done by then is kept.
        ConfigError: no room, another writer, or a cache of another kind in the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(folder, error) from error
    with _alone(folder):
        _begin(folder, read_mask)
        cache = Cache(folder, root, read_mask)
        planned = list(_plan(cache, [pair for pair in files if not cache.holds(pair)]))
        _check_room(folder, sum(entry.length + PAGE for _, entry in planned))

        def write(place: tuple[Pair, Entry]) -> Entry:
            pair, entry = place
            return _write_pair(folder, pair, entry, cache.entries.get(entry.files[0]), read_mask)

        with ThreadPoolExecutor(max(workers, 1)) as pool:
            try:
                _append(folder, track(pool.map(write, planned), len(planned)))
            except OSError as error:
                raise _no_place(folder, error) from error
            finally:
                pool.shutdown(cancel_futures=True)
    return len(planned)


def verify_cache(
    folder: Path, root: Path, read_mask: ReadMask, track: Track = lambda entries, total: entries
) -> list[Entry]:
    """Read every byte of a cache; take the pairs that are damaged out of it, and return them.

    Raises:
        DataError: a shard was cut off.
        ConfigError: no cache, or a writer is at it.
    """
    cache = Cache(folder, root, read_mask)
    with _alone(folder):
        entries = track(cache.entries.values(), len(cache.entries))
        damaged = [entry for entry in entries if not cache.is_whole(entry)]
        if damaged:
            kept = [entry for entry in cache.entries.values() if entry not in damaged]
            with replacing(folder / INDEX) as index:
                head = (folder / INDEX).read_text("utf-8").partition("\n")[0]
                lines = [head, *(json.dumps(asdict(entry)) for entry in kept)]
                index.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return damaged


def _write_pair(
    folder: Path, pair: Pair, entry: Entry, before: Entry | None, read_mask: ReadMask
) -> Entry:
    """Decode a pair into its place; where only the time of a file changed, note that alone."""
    sources = _sources(pair)
    if before and (before.files, before.sources) == (entry.files, sources):
        return replace(before, stats=entry.stats)
    image_path, mask_path = pair
    parts = [read_image(image_path), *([read_mask(mask_path)] if mask_path else [])]
    for part, path in zip(parts, pair, strict=False):
        if part.shape[:2] != entry.size:
            raise DataError(
                f"{path} is {part.shape[1]}x{part.shape[0]} (width x height), expected "
                f"{entry.size[1]}x{entry.size[0]} as its image's header says.\n"
                "Export the mask again at the image's size."
            )
    data = b"".join(part.tobytes() for part in parts)
    with _shard(folder, entry.shard).open("r+b") as file:
        os.pwrite(file.fileno(), data, entry.offset)
    return replace(entry, sources=sources, content=hashlib.sha256(data).hexdigest())


def _plan(cache: Cache, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Entry]]:
    """Yield each pair with its place, behind what the cache holds."""
    shard, offset = max(
        ((e.shard, e.offset + e.length) for e in cache.entries.values()), default=(0, 0)
    )
    for pair in pairs:
        offset = -(-offset // PAGE) * PAGE
        entry = Entry(_key(pair, cache.root), _stats(pair), (), header_size(pair[0]), shard, offset)
        if offset and offset + entry.length > SHARD:
            shard, offset = shard + 1, 0
            entry = replace(entry, shard=shard, offset=offset)
        _shard(cache.folder, shard).touch()
        offset += entry.length
        yield pair, entry


def _append(folder: Path, entries: Iterable[Entry]) -> None:
    """Write lines of the index, each after the bytes that it speaks of."""
    waiting: list[Entry] = []

    def commit() -> None:
        for shard in {entry.shard for entry in waiting}:
            with _shard(folder, shard).open("rb") as file:
                os.fsync(file.fileno())
        with (folder / INDEX).open("a", encoding="utf-8") as index:
            index.writelines(json.dumps(asdict(entry)) + "\n" for entry in waiting)
            index.flush()
            os.fsync(index.fileno())
        waiting.clear()

    try:
        for entry in entries:
            waiting.append(entry)
            if len(waiting) == BATCH:
                commit()
    finally:
        commit()  # what is done when a file cannot be read, or Ctrl-C comes


def _begin(folder: Path, read_mask: ReadMask) -> None:
    """Write the first line of a new index; cut off a last line that a killed writer left torn."""
    index = folder / INDEX
    lines = index.read_bytes() if index.is_file() else b""
    whole = lines[: lines.rfind(b"\n") + 1]
    if not whole:
        head = {"hrseg_cache": FORMAT, "masks": _identity(read_mask)}
        index.write_text(json.dumps(head) + "\n", encoding="utf-8")
    elif whole != lines:
        os.truncate(index, len(whole))


def _read_index(folder: Path, read_mask: ReadMask) -> dict[str, Entry]:
    path = folder / INDEX
    head, *lines = path.read_text("utf-8").split("\n")[:-1] or [""]
    try:
        found = json.loads(head)
        version, masks = found["hrseg_cache"], found["masks"]
    except (ValueError, KeyError, TypeError):
        version, masks = None, None
    if version != FORMAT:
        raise ConfigError(
            f"{path} is no index of a cache of this version of hrseg ({FORMAT}).\n"
            f"Remove {folder} and make the cache again: hrseg data cache."
        )
    if masks != _identity(read_mask):
        raise ConfigError(
            f"the masks in the cache {folder} were read with other classes, ids or colours.\n"
            "Make another one: hrseg data cache with data.cache=ANOTHER_FOLDER."
        )
    entries: dict[str, Entry] = {}
    for number, line in enumerate(lines, 2):
        try:
            entry = Entry.parse(line)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: damaged.\nRemove {folder} and make the cache again: "
                "hrseg data cache."
            ) from error
        entries[entry.files[0]] = entry
    return entries


def _identity(read_mask: ReadMask) -> str:
    """Return what tells a way to read masks from others."""
    identity = getattr(read_mask, "identity", None)
    if identity is None:
        raise ConfigError(
            f"{read_mask!r} does not say how it reads masks, so no cache can be checked.\n"
            "Give it an `identity` string that changes with the ids, or leave data.cache out."
        )
    return hashlib.sha256(str(identity).encode()).hexdigest()


def _key(pair: Pair, root: Path) -> tuple[str, ...]:
    """Return the paths as the index names them: below the root, so that both can move."""
    paths = [path.absolute() for path in pair if path is not None]
    top = root.absolute()
    return tuple(
        (path.relative_to(top) if path.is_relative_to(top) else path).as_posix() for path in paths
    )


def _stats(pair: Pair) -> tuple[tuple[int, int], ...]:
    try:
        stats = [path.stat() for path in pair if path is not None]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


def _sources(pair: Pair) -> tuple[str, ...]:
    try:
        return tuple(
            hashlib.sha256(path.read_bytes()).hexdigest() for path in pair if path is not None
        )
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05}.bin"


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConfigError(
            f"the cache needs {needed / 2**30:.1f} GiB more; {folder} has {free / 2**30:.1f}.\n"
            "Choose another disk: data.cache=FOLDER."
        )


def _no_place(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"cannot write the cache {folder.absolute()}: {error.strerror}.\n"
        "What it holds stays. Make room or choose another folder, data.cache=FOLDER, and go on."
    )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second writer out; the lock goes with the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"another process is writing the cache {folder}: wait.") from error
        yield
