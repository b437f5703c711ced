"""Import of annotations: the work of `hrseg data import`."""

import shlex
from pathlib import Path

from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.data.formats import FORMATS, Format, recognise
from hrseg.data.formats.output import Classes, check_target, final_classes
from hrseg.data.formats.writer import Import, write
from hrseg.errors import DataError
from hrseg.utils.console import echo
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import one_line
from hrseg.visualize import default_palette


def import_data(source: Path, out: Path, name: str = "auto", background: bool = False) -> None:
    """Convert the annotations in a folder to images, masks and classes.txt; print a summary.

    Args:
        source: folder of images and annotations.
        out: new or empty folder.
        name: of the format; "auto": the first format that recognises the folder.
        background: unlabelled pixels are the class "background"; else they are ignored.

    Raises:
        DataError: an unknown format, or damaged annotations. `out` is not written.
        ConfigError: `out` exists.
    """
    check_target(out)
    form = _format(source, name)
    echo(f"{source}: {form.TITLE}")
    annotations = form.read(source)
    classes = final_classes(annotations, default_palette(IGNORE_INDEX), background)
    meaning = "background" if background else "ignored (255)"
    about = {"source": str(source.absolute()), "format": form.NAME, "unlabelled": meaning}
    result = write(annotations, classes, source, out, about)
    _show(result, classes)
    echo(
        f"unlabelled pixels are {meaning}; --unlabelled "
        f"{'ignore' if background else 'background'} changes this. Smaller objects are drawn over "
        "larger ones.",
        f"wrote {out}. Write a config for it:\nhrseg init {shlex.quote(str(out))}",
    )


def _format(source: Path, name: str) -> Format:
    """Return the format with this name, or the format of the files in the source folder."""
    if not source.is_dir():
        kind = "is a file, not a folder" if source.exists() else "does not exist"
        fix = f" Fix: hrseg data import {shlex.quote(str(source.parent))} OUT"
        raise DataError(
            f"{one_line(str(source))} {kind}.\nExpected: the folder of images and annotations."
            f"{fix if source.exists() else ''}"
        )
    chosen = recognise(source) if name == "auto" else name
    form = next((form for form in FORMATS if chosen == form.NAME), None)
    if form and (name == "auto" or form.recognise(source)):
        return form
    if form:
        raise DataError(
            f"{one_line(str(source))} has no {form.TITLE}.\nExpected: {form.SIGNATURE}.\n"
            "Fix: leave out --format, or choose the folder above or below."
        )
    known = ", ".join(form.TITLE for form in FORMATS)
    raise DataError(
        f"{one_line(str(source))} has annotations of no known format.\nExpected: {known}.\n"
        "Fix: choose the folder above or below, or export the data set in one of these formats."
    )


def _show(result: Import, classes: Classes) -> None:
    """Print the share of each class, the numbers of images, and the warnings."""
    table = Table("id", "class", "pixels")
    table.columns[2].justify = "right"
    total = max(1, int(result.pixels.sum()))
    rows = [*enumerate(classes.names), (IGNORE_INDEX, "(ignored)")]
    for number, name in rows:
        table.add_row(str(number), escape(one_line(name)), f"{result.pixels[number] / total:.2%}")
    get_console().print(table)
    images = sum(result.images.values())
    splits = ", ".join(f"{split or 'no split'} {n}" for split, n in sorted(result.images.items()))
    shown = splits if any(result.images) else "no splits"
    echo(f"{images} images ({shown}), {result.unlabelled / total:.2%} of the pixels unlabelled")
    echo(*(f"WARNING: {warning}" for warning in result.warnings))
