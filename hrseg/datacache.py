"""`hrseg data cache`: decode a data set once, so that training reads pixels instead of files."""

from collections.abc import Iterable
from pathlib import Path

from hrseg.config.schema import Config
from hrseg.data.cache import Entry, Pair
from hrseg.data.cache_writer import verify_cache, write_cache
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import DataError
from hrseg.training.factory import build_data
from hrseg.utils.console import progress_bar, say
from hrseg.utils.system import processors

FOLDER = ".hrseg_cache"  # below the data set's root


def cache_data(config: Config, workers: int | None = None, verify: bool = False) -> Path:
    """Bring the cache of the splits to train and to validate on up to date; return its folder.

    Args:
        config: its data section says which data set, and with `cache` where the cache lies.
        workers: threads; None: one per core.
        verify: read every byte of a cache instead, and take damaged pairs out.

    Raises:
        DataError: a file that cannot be read, or damage found by `verify`.
        ConfigError: no room, another writer, or a cache of another kind in the folder.
    """
    data = build_data(config)
    folder = data.cache or data.root / FOLDER
    if verify:
        _verify(data, folder)
        return folder
    data.prepare_data()
    splits = dict.fromkeys((data.train_split, data.val_split))
    files: list[Pair] = list(
        dict.fromkeys(pair for split in splits for pair in data.dataset(split).files)
    )
    with progress_bar() as bar:

        def track(entries: Iterable[Entry], total: int) -> Iterable[Entry]:
            return bar.track(entries, total=total, description="decoding")

        reader = data.mask_reader()
        count = write_cache(folder, data.root, files, reader, workers or processors(), track)
    size = sum(path.stat().st_size for path in folder.glob("shard-*.bin")) / 2**30
    say(
        f"{folder}: {len(files):,} images and masks, {count:,} of them written now; "
        f"{size:.1f} GiB\n"
        f"use it: hrseg fit --config {config.name} data.cache={folder}"
    )
    return folder


def _verify(data: SegmentationDataModule, folder: Path) -> None:
    with progress_bar() as bar:

        def track(entries: Iterable[Entry], total: int) -> Iterable[Entry]:
            return bar.track(entries, total=total, description="reading")

        damaged = verify_cache(folder, data.root, data.mask_reader(), track)
    if damaged:
        some = ", ".join(entry.files[0] for entry in damaged[:5])
        raise DataError(
            f"{len(damaged)} images in the cache {folder} are damaged and were taken out of it: "
            f"{some}{', ...' if len(damaged) > 5 else ''}\n"
            "Decode them again: the same command without --verify. Is the disk failing?"
        )
    say(f"{folder}: every byte is as it was written")
