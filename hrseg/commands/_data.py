"""File check, statistics and cache of a data set: the work of `hrseg data`."""

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.config.schema import Config
from hrseg.data.analysis.check import Fault, Split, check_splits, compare_splits, find_split
from hrseg.data.analysis.statistics import split_stats
from hrseg.data.cache_writer import verify_cache, write_cache
from hrseg.data.checksums import NAME, Manifest, write_manifest
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import printable_path
from hrseg.errors import DataError
from hrseg.training.factory import build_data
from hrseg.utils.console import echo, note, track
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import write_json
from hrseg.utils.system import processors
from hrseg.utils.text import some

_WEIGHTS = {
    "enet": "ENet: 1 / ln(1.02 + share)",
    "median_frequency": "median frequency: median(f) / f, f = pixels / pixels of its images",
    "sqrt_median": "square root, less extreme: sqrt(median(share) / share)",
}
_ON_SCREEN = 20  # faults
_CACHE = ".hrseg_cache"  # below the data set's root


def check_data(
    config: Config,
    splits: Sequence[str] | None = None,
    out: Path | None = None,
    workers: int | None = None,
    hashes: bool = False,
) -> dict[str, Any]:
    """Read every file of the splits; print and return their contents and faults.

    Args:
        config: config whose data section describes the data set.
        splits: names of splits; None: the training and validation split, and the test split if it
            exists.
        out: JSON file for the result.
        workers: number of processes; None: one per core, 0: only this process.
        hashes: compare the files with the manifest; write a missing manifest.

    Raises:
        DataError: a worker process was killed or hangs.
    """
    data = build_data(config)
    manifest = data.manifest or data.root / NAME
    if hashes:
        data.manifest = None  # the files are compared at the end, and the manifest may be missing
    names = splits or (data.train_split, data.val_split)
    parts = dict.fromkeys(part for name in names for part in data.unions.get(name, (name,)))
    checked = [find_split(data, part) for part in parts]
    if not splits and data.test_split not in (*names, *parts):
        test = find_split(data, data.test_split)
        if test.files:
            checked.append(test)
        elif data.test_split in data.expected_images:
            echo(f"the test split is missing: {test.faults[0].message.splitlines()[0]}")
    seconds = _read_files(data, checked, workers)
    if hashes:
        echo(_compare(manifest, data.root, checked))
    faults = [item for split in checked for item in split.faults]
    images = sum(len(split.files) for split in checked)
    leakage = compare_splits(data, checked)
    result = {
        "splits": {split.name: _split_report(data, split) for split in checked},
        "faults": len(faults),
        "leakage": [finding.summary() for finding in leakage],
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 2),
    }
    _show_check(checked, data.class_names)
    echo(*(f"warning: {finding.message()}" for finding in leakage if finding.neighbours))
    files = len({item.file for item in faults})
    count = f"{_many(len(faults), 'fault')} in {_many(files, 'file')} of"
    echo(
        f"{count if faults else 'no faults in'} {images:,} images, {seconds:.0f} s, "
        f"{images / seconds:.0f} images/s"
    )
    if out is not None:
        write_json(out, result)
    return result


def data_stats(
    config: Config, split: str | None = None, out: Path | None = None, workers: int | None = None
) -> dict[str, Any]:
    """Print and return class weights, mean and standard deviation of a split.

    Without `split`, it is the training split. The other arguments are those of `check_data`.

    Raises:
        DataError: a file has a fault, which would falsify the statistics; or as in `check_data`.
    """
    data = build_data(config)
    chosen = find_split(data, split or data.train_split)
    _read_files(data, [chosen], workers)
    if chosen.faults:
        raise DataError(
            f"Split {chosen.name} has {_many(len(chosen.faults), 'fault')}. The first: "
            f"{_sentence(chosen.faults[0])}\n"
            "Expected: files without faults. Fix: `hrseg data check` lists every fault."
        )
    result = split_stats(chosen, data.class_names)
    _show_stats(result)
    if out is not None:
        write_json(out, result)
    return result


def cache_data(config: Config, workers: int | None = None, verify: bool = False) -> Path:
    """Update the cache of the training and validation split; return its folder.

    With `verify`, read every byte of the cache instead, and remove damaged pairs.

    Raises:
        DataError: an unreadable file, or damaged pairs found by `verify`.
        ConfigError: a full disk, another writing process, or a folder of another kind.
    """
    data = build_data(config)
    folder = data.cache or data.root / _CACHE
    reader = data.mask_reader()
    if verify:
        with suppress(DataError):  # a cache can be verified without its data set
            data.dataset(data.train_split)  # measures the channels
        entries = partial(track, description="reading")
        if damaged := verify_cache(folder, data.root, reader, entries, data.channels):
            raise DataError(
                f"{len(damaged)} damaged images were removed from the cache {folder}: "
                f"{some([entry.files[0] for entry in damaged])}\n"
                "Expected: bytes as they were written. Does the disk have errors?\n"
                "Fix: the same command without --verify decodes the images again."
            )
        echo(f"{folder}: no damaged images")
        return folder
    data.prepare_data()
    splits = (data.train_split, data.val_split)
    files = list(dict.fromkeys(pair for split in splits for pair in data.dataset(split).files))
    entries = partial(track, description="decoding")
    count = write_cache(
        folder, data.root, files, reader, workers or processors(), entries, data.channels
    )
    size = sum(path.stat().st_size for path in folder.glob("shard-*.bin")) / 2**30
    echo(
        f"{folder}: {len(files):,} images and masks, {count:,} of them written now; "
        f"{size:.1f} GiB\n"
        f"to train with it: hrseg fit --config {config.name} data.cache={folder}"
    )
    return folder


def _read_files(
    data: SegmentationDataModule, splits: Sequence[Split], workers: int | None
) -> float:
    """Read all files, with a progress bar; return the seconds."""
    if workers is None:
        workers = min(processors(), sum(len(split.files) for split in splits))
    began = time.monotonic()
    bar = partial(track, description="reading files")
    check_splits(splits, data.mask_reader(), workers, data.worker_timeout, bar, data.channels)
    return time.monotonic() - began


def _compare(path: Path, root: Path, splits: Sequence[Split]) -> str:
    """Compare all files with the manifest and add faults, or write it; return a message."""
    digests = {file: digest for split in splits for file, digest in split.digests.items()}
    if not path.is_file():
        if any(split.faults for split in splits):
            return f"The manifest {path} was not written. Fix: repair the faults first."
        write_manifest(path, root, digests.items())
        return f"wrote {path}: {len(digests):,} files. data.manifest={path} compares the files."
    manifest = Manifest.read(path, root)
    for split in splits:
        for file, digest in split.digests.items():
            try:
                manifest.compare(file, digest)
            except DataError as error:
                split.faults.append(Fault(file, str(error)))
    missing = [file for name in manifest.digests if not (file := root / name).exists()]
    message = f"is missing, but the manifest {path} lists it."
    splits[0].faults += [Fault(file, message) for file in missing]
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
    table = _table("split", "images", "official", "width x height", "ignored pixels", "faults")
    for split in splits:
        official = "-" if split.expected is None else f"{split.expected:,}"
        ignored = _percent(int(split.pixels[IGNORE_INDEX]), int(split.pixels.sum()))
        cells = (f"{len(split.files):,}", official, _size_text(split.size_rows()), ignored)
        table.add_row(escape(split.name), *cells, str(len(split.faults)))
    get_console().print(table)
    for split in splits:
        for remark in split.remarks(names):
            note(f"{split.name}: {remark}")
    faults = [item for split in splits for item in split.faults]
    for item in faults[:_ON_SCREEN]:
        echo(f"fault: {_sentence(item)}")
    if len(faults) > _ON_SCREEN:
        echo(f"... and {len(faults) - _ON_SCREEN} more; --json FILE writes all of them")


def _show_stats(result: dict[str, Any]) -> None:
    table = _table("class", "pixels", "images", "ENet", "median freq.", "sqrt")
    rows, ignored = result["classes"], result["ignored_pixels"]
    labelled = sum(row["pixels"] for row in rows)
    for row in rows:
        weights = ["-" if row[kind] is None else f"{row[kind]:.4g}" for kind in _WEIGHTS]
        share = _percent(row["pixels"], labelled)
        table.add_row(escape(row["name"]), share, f"{row['images']:,}", *weights)
    if rows:
        get_console().print(table)
    echo(
        f"split {result['split']}: {_many(result['images'], 'image')}, width x height "
        f"{_size_text(result['sizes'])}, ignored pixels {_percent(ignored, labelled + ignored)}"
    )
    meaning = "RGB, in 0..1" if len(result["mean"]) == 3 else "per channel, in 0..1"
    for kind in ("mean", "std"):
        echo(f"{kind}: [{', '.join(f'{value:.4f}' for value in result[kind])}]   # {meaning}")
    if not rows:
        echo("no masks, so no class weights")
        return
    for kind, meaning in _WEIGHTS.items():
        values = (1.0 if row[kind] is None else row[kind] for row in rows)
        echo(f"# {meaning}\nclass_weights: [{', '.join(f'{value:.4g}' for value in values)}]")
    if missing := [row["name"] for row in rows if not row["pixels"]]:
        echo(
            f"classes without a pixel in {result['split']}: {', '.join(missing)}. Their weights "
            "are undefined and set to 1. With 0 the loss would ignore them in other images."
        )


def _table(first: str, *numbers: str) -> Table:
    table = Table(first)
    for header in numbers:
        table.add_column(header, justify="right")
    return table


def _size_text(sizes: Sequence[dict[str, int]]) -> str:
    texts = [f"{size['width']}x{size['height']}" for size in sizes]
    return some(texts, 1 if len(texts) > 2 else 2) or "-"


def _sentence(item: Fault) -> str:
    file = printable_path(item.file)
    return item.message if file in item.message else f"{file}: {item.message}"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if part else "-"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
