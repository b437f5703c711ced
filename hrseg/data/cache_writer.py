"""Writer of the cache of decoded images.

An index line is written after its data, so that a killed writer can resume.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from hrseg.data.cache import INDEX, Cache, Entry, Pair, header, shard_path, sources_of, stats_of
from hrseg.data.dataset import read_pair
from hrseg.data.images import header_size
from hrseg.data.masks import ReadMask
from hrseg.errors import ConfigError
from hrseg.utils.channels import Channels
from hrseg.utils.files import write_bytes

Track = Callable[[Iterable[Entry], int], Iterable[Entry]]

PAGE = 4096  # bytes of a memory page; pairs begin on one
SHARD = 2**31  # bytes of a shard at most
BATCH = 16  # pairs between two fsync calls


def write_cache(
    folder: Path,
    root: Path,
    files: Sequence[Pair],
    read_mask: ReadMask,
    workers: int = 1,
    track: Track = lambda entries, total: entries,
    channels: Channels | None = None,
) -> int:
    """Update a cache; return the number of decoded or compared pairs.

    Args:
        folder: folder of the cache.
        root: root of the data set.
        files: pairs to store.
        read_mask: path -> train ids (H, W), with an `identity`.
        workers: number of threads that decode.
        track: wraps the finished entries and their total, for a progress bar.
        channels: of the images; None: RGB uint8.

    Raises:
        DataError: an unreadable file.
        ConfigError: a full disk, another writer, or a cache of other masks.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _prepare_index(folder, header(read_mask, channels))
            cache = Cache(folder, root, read_mask, channels)
            planned = list(_plan(cache, [pair for pair in files if not cache.contains(pair, True)]))
            with ThreadPoolExecutor(max(workers, 1)) as pool:
                written = pool.map(
                    lambda part: _write_pair(cache, part[0], part[1], read_mask, channels), planned
                )
                try:
                    _append(folder, track(written, len(planned)))
                finally:
                    pool.shutdown(cancel_futures=True)
    except OSError as error:
        raise ConfigError(
            f"The cache {folder.absolute()} cannot be written: {error.strerror}.\n"
            "Expected: a writable folder with enough space. Finished pairs are kept.\n"
            "Fix: free space, or set data.cache=FOLDER; then repeat the command."
        ) from error
    return len(planned)


def verify_cache(
    folder: Path,
    root: Path,
    read_mask: ReadMask,
    track: Track = lambda entries, total: entries,
    channels: Channels | None = None,
) -> list[Entry]:
    """Read every byte; remove damaged pairs and return them.

    Raises:
        ConfigError: the cache is missing, or another process writes it.
        DataError: a shard was cut off.
    """
    cache = Cache(folder, root, read_mask, channels)
    with _locked(folder):
        entries = track(cache.entries.values(), len(cache.entries))
        damaged = [entry for entry in entries if _digest(cache.data(entry).data) != entry.content]
        if damaged:
            kept = [entry for entry in cache.entries.values() if entry not in damaged]
            lines = [header(read_mask, channels) + "\n", *map(_line, kept)]
            write_bytes(folder / INDEX, "".join(lines).encode())
    return damaged


def _write_pair(
    cache: Cache, pair: Pair, entry: Entry, read_mask: ReadMask, channels: Channels | None
) -> Entry:
    """Decode a pair into its shard; if only the time of a file changed, update the entry."""
    sources, before = sources_of(pair), cache.entries.get(entry.files[0])
    if before and (before.files, before.sources) == (entry.files, sources):
        return replace(before, stats=entry.stats)
    image, mask = read_pair(pair, read_mask, channels)
    data = image.tobytes() + (mask.tobytes() if pair[1] else b"")
    with shard_path(cache.folder, entry.shard).open("r+b") as file:
        file.seek(entry.offset)
        file.write(data)
    size = image.shape[0], image.shape[1]  # after the EXIF orientation
    return replace(entry, sources=sources, size=size, content=_digest(data))


def _plan(cache: Cache, pairs: Sequence[Pair]) -> Iterator[tuple[Pair, Entry]]:
    """Yield each pair with an entry after the data in the cache."""
    shard, offset = max(
        ((e.shard, e.offset + e.length) for e in cache.entries.values()), default=(0, 0)
    )
    for pair in pairs:
        offset = -(-offset // PAGE) * PAGE
        entry = Entry(
            cache.key(pair),
            stats_of(pair),
            (),
            header_size(pair[0]),
            shard,
            offset,
            pixel_bytes=cache.pixel_bytes,
        )
        if offset and offset + entry.length > SHARD:
            shard, offset = shard + 1, 0
            entry = replace(entry, shard=shard, offset=offset)
        shard_path(cache.folder, shard).touch()
        offset += entry.length
        yield pair, entry


def _append(folder: Path, entries: Iterable[Entry]) -> None:
    """Append the entries to the index, each after its data is on the disk."""
    waiting: list[Entry] = []

    def commit() -> None:
        for shard in {entry.shard for entry in waiting}:
            with shard_path(folder, shard).open("rb") as file:
                os.fsync(file.fileno())
        with (folder / INDEX).open("a", encoding="utf-8") as index:
            index.writelines(map(_line, waiting))
            index.flush()
            os.fsync(index.fileno())
        waiting.clear()

    try:
        for entry in entries:
            waiting.append(entry)
            if len(waiting) == BATCH:
                commit()
    finally:
        commit()  # also after an unreadable file or Ctrl-C


def _line(entry: Entry) -> str:
    content = asdict(entry)
    if entry.pixel_bytes == 3:
        del content["pixel_bytes"]
    return json.dumps(content) + "\n"


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _prepare_index(folder: Path, first: str) -> None:
    """Write the first line of a new index, or cut off an incomplete last line."""
    index = folder / INDEX
    lines = index.read_bytes() if index.is_file() else b""
    whole = lines[: lines.rfind(b"\n") + 1]
    if not whole:
        index.write_text(first + "\n", encoding="utf-8")
    elif whole != lines:
        os.truncate(index, len(whole))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the cache until the end of the block or process; ConfigError: another writer."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"Another process is writing the cache {folder}.\n"
                "Expected: one writer. Fix: wait until it has finished."
            ) from error
        yield
