"""File checks, statistics and cache of a data set: the work of `hrseg data`."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.config.schema import Config
from hrseg.data.analysis.check import Fault, Split, find_split, look_through
from hrseg.data.analysis.statistics import split_stats
from hrseg.data.cache import Pair
from hrseg.data.cache_writer import verify_cache, write_cache
from hrseg.data.checksums import NAME, Manifest, write_manifest
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import named
from hrseg.errors import DataError
from hrseg.training.factory import build_data
from hrseg.utils.console import say, track
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import write_json
from hrseg.utils.system import processors

_WEIGHTS = {
    "enet": "ENet: 1 / ln(1.02 + share)",
    "median_frequency": "median frequency: median(f) / f, f = pixels / pixels of its images",
    "sqrt_median": "milder: sqrt(median(share) / share)",
}
_ON_SCREEN = 20


def check_data(
    config: Config,
    splits: Sequence[str] | None = None,
    out: Path | None = None,
    workers: int | None = None,
    hashes: bool = False,
) -> dict[str, Any]:
    """Look at every file of some splits; print what they hold and what is wrong with them.

    Args:
        config: its data section says which data set.
        splits: names; None: those to train and to validate on, and the test split if there is
            one. Of a union its parts are looked at, each once.
        out: file for the result as JSON.
        workers: processes; None: one per core, 0: this one alone.
        hashes: compare the files with the manifest, or write it where there is none.

    Returns:
        The result: "splits", "faults" (their number), "seconds", "images_per_second".

    Raises:
        DataError: a worker process was killed, or hangs.
    """
    data = build_data(config)
    manifest = data.manifest or data.root / NAME
    if hashes:
        data.manifest = None  # all is compared at the end, and it may not be there yet
    names = splits or (data.train_split, data.val_split)
    parts = dict.fromkeys(part for name in names for part in data.unions.get(name, (name,)))
    found = [find_split(data, part) for part in parts]
    if not splits and data.test_split not in (*names, *parts):
        test = find_split(data, data.test_split)
        if test.files:
            found.append(test)
        else:
            say(f"no test split: {test.faults[0].message.splitlines()[0]}")
    seconds = _look(data, found, workers)
    if hashes:
        say(_manifest(manifest, data.root, found))
    faults = sum(len(split.faults) for split in found)
    images = sum(len(split.files) for split in found)
    result = {
        "splits": {split.name: _split_report(data, split) for split in found},
        "faults": faults,
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 2),
    }
    _show_check(found, data.class_names)
    end = f"{images:,} images, {seconds:.0f} s, {images / seconds:.0f} images/s"
    files = len({fault.file for split in found for fault in split.faults})
    say(f"{_many(faults, 'fault')} in {_many(files, 'file')} of {end}" if faults else
         f"no faults in {end}")  # fmt: skip
    if out is not None:
        write_json(out, result)
    return result


def data_stats(
    config: Config, split: str | None = None, out: Path | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Print what a config needs to know of a split: class weights, mean and standard deviation.

    Args:
        config: its data section says which data set.
        split: name; None: the one to train on.
        out: file for the result as JSON.
        workers: as for `check_data`.

    Returns:
        The result; a class that is never seen has no weights.

    Raises:
        DataError: a file is at fault, so that the figures would be wrong; or as in `check_data`.
    """
    data = build_data(config)
    found = find_split(data, split or data.train_split)
    _look(data, [found], workers)
    if found.faults:
        raise DataError(
            f"{_many(len(found.faults), 'fault')} in split {found.name}, the first: "
            f"{_sentence(found.faults[0].file, found.faults[0].message)}\n"
            "No figures of what is left. `hrseg data check` lists every fault."
        )
    result = split_stats(found, data.class_names)
    _show_stats(result)
    if out is not None:
        write_json(out, result)
    return result


def _look(data: SegmentationDataModule, splits: Sequence[Split], workers: int | None) -> float:
    """Look at all files behind a progress bar; return the seconds that it took."""
    if workers is None:
        workers = min(processors(), sum(len(split.files) for split in splits))
    began = time.monotonic()
    patience, looks = data.worker_timeout, partial(track, description="looking at files")
    look_through(splits, data.mask_reader(), workers, patience, looks)
    return time.monotonic() - began


def _manifest(path: Path, root: Path, splits: Sequence[Split]) -> str:
    """Compare all files with the manifest, or write it where there is none; return what was done.

    What differs becomes a fault of its split. A manifest is written of faultless files alone.
    """
    digests = {file: digest for split in splits for file, digest in split.digests.items()}
    if not path.is_file():
        if any(split.faults for split in splits):
            return f"no manifest was written to {path}: repair the faults first."
        write_manifest(path, root, digests.items())
        return f"wrote {path}: {len(digests):,} files. data.manifest={path} compares what is read."
    manifest = Manifest.read(path, root)
    for split in splits:
        for file, digest in split.digests.items():
            try:
                manifest.compare(file, digest)
            except DataError as error:
                split.faults.append(Fault(file, str(error)))
    gone = [file for name in manifest.digests if not (file := root / name).exists()]
    splits[0].faults += [Fault(file, f"is gone: the manifest {path} lists it.") for file in gone]
    return f"compared {len(digests):,} files with {path}"


def _split_report(data: SegmentationDataModule, split: Split) -> dict[str, Any]:
    return {
        "images": len(split.files),
        "expected": split.expected,
        "sizes": split.size_rows(),
        "classes": split.class_rows(data.class_names),
        "ignored_pixels": int(split.pixels[IGNORE_INDEX]),
        "notes": split.remarks(data.class_names),
        "faults": [{"file": str(f.file), "message": f.message} for f in split.faults],
    }


def _show_check(splits: Sequence[Split], names: Sequence[str]) -> None:
    """Print a row for each split, its classes beside those of the others, notes, and faults."""
    table = Table("split")
    for header in ("images", "official", "width x height", "ignored pixels", "faults"):
        table.add_column(header, justify="right")
    for split in splits:
        official = "-" if split.expected is None else f"{split.expected:,}"
        ignored = _percent(int(split.pixels[IGNORE_INDEX]), int(split.pixels.sum()))
        cells = (f"{len(split.files):,}", official, _size_text(split.size_rows()), ignored)
        table.add_row(escape(split.name), *cells, str(len(split.faults)))
    get_console().print(table)
    with_masks = [split for split in splits if split.pixels.any()]
    if with_masks:
        get_console().print(_class_table(with_masks, names))
    for split in splits:
        for note in split.remarks(names):
            say(f"note: {split.name}: {note}")
    faults = [found for split in splits for found in split.faults]
    for found in faults[:_ON_SCREEN]:
        say(f"fault: {_sentence(found.file, found.message)}")
    if len(faults) > _ON_SCREEN:
        say(f"... and {len(faults) - _ON_SCREEN} more; --json FILE writes all of them")


def _class_table(splits: Sequence[Split], names: Sequence[str]) -> Table:
    table = Table("class")
    for split in splits:
        for what in ("pixels", "images"):
            table.add_column(f"{escape(split.name)}\n{what}", justify="right")
    for i, name in enumerate(names):
        cells: list[str] = []
        for split in splits:
            labelled = int(split.pixels[:IGNORE_INDEX].sum())
            images = int(split.images[i])
            cells += [_percent(int(split.pixels[i]), labelled), f"{images:,}" if images else "-"]
        table.add_row(escape(name), *cells)
    return table


def _show_stats(result: dict[str, Any]) -> None:
    """Print a row for each class, then lines that a config takes."""
    table = Table("class")
    for header in ("pixels", "images", "ENet", "median freq.", "sqrt"):
        table.add_column(header, justify="right")
    rows = result["classes"]
    labelled = sum(row["pixels"] for row in rows)
    for row in rows:
        weights = ["-" if row[kind] is None else f"{row[kind]:.4g}" for kind in _WEIGHTS]
        share = _percent(row["pixels"], labelled)
        table.add_row(escape(row["name"]), share, f"{row['images']:,}", *weights)
    if rows:
        get_console().print(table)
    say(
        f"split {result['split']}: {_many(result['images'], 'image')}, width x height "
        f"{_size_text(result['sizes'])}, ignored pixels "
        f"{_percent(result['ignored_pixels'], labelled + result['ignored_pixels'])}"
    )
    for what in ("mean", "std"):
        say(f"{what}: [{', '.join(f'{value:.4f}' for value in result[what])}]   # RGB, in 0..1")
    if not rows:
        say("no masks, so no class weights")
    for kind, meaning in _WEIGHTS.items() if rows else ():
        values = (1.0 if row[kind] is None else row[kind] for row in rows)
        say(f"# {meaning}\nclass_weights: [{', '.join(f'{value:.4g}' for value in values)}]")
    if never := [row["name"] for row in rows if not row["pixels"]]:
        say(
            f"never seen in {result['split']}: {', '.join(never)}. Their weights mean nothing; "
            "1 stands for them, as 0 would switch the class off where it does occur."
        )


def _size_text(sizes: Sequence[dict[str, int]]) -> str:
    texts = [f"{size['width']}x{size['height']}" for size in sizes]
    if len(texts) < 3:
        return ", ".join(texts) or "-"
    return f"{texts[0]} and {len(texts) - 1} more"


def _sentence(file: Path, message: str) -> str:
    return message if named(file) in message else f"{named(file)}: {message}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if part else "-"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


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
    reader, entries = data.mask_reader(), partial(track, description="decoding")
    count = write_cache(folder, data.root, files, reader, workers or processors(), entries)
    size = sum(path.stat().st_size for path in folder.glob("shard-*.bin")) / 2**30
    say(
        f"{folder}: {len(files):,} images and masks, {count:,} of them written now; "
        f"{size:.1f} GiB\n"
        f"use it: hrseg fit --config {config.name} data.cache={folder}"
    )
    return folder


def _verify(data: SegmentationDataModule, folder: Path) -> None:
    entries = partial(track, description="reading")
    damaged = verify_cache(folder, data.root, data.mask_reader(), entries)
    if damaged:
        some = ", ".join(entry.files[0] for entry in damaged[:5])
        raise DataError(
            f"{len(damaged)} images in the cache {folder} are damaged and were taken out of it: "
            f"{some}{', ...' if len(damaged) > 5 else ''}\n"
            "Decode them again: the same command without --verify. Is the disk failing?"
        )
    say(f"{folder}: every byte is as it was written")
