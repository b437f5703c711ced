"""Grouped splits: a seeded share of the images that keeps each video, patient or scene whole."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePosixPath

from hrseg.data.images import SUFFIXES
from hrseg.errors import ConfigError, DataError
from hrseg.utils.text import one_line, some

_FORMS = "a regular expression such as '^(.+)_', or FILE.csv, or FILE.csv:COLUMN"


# Named folders; names before a last part, or before the last two; letters before digits.
_PROPOSALS = ("^(.+)/", "^(.+)_", "^(.+)-", "^(.+)_.*_", r"^(.*\D)\d")


def propose_groups(names: Sequence[str]) -> str | None:
    """Return a value of `data.group_by` for names with a repeated prefix and a number; or None.

    Args:
        names: path of each image below the image folder, without extension.
    """
    for proposal in _PROPOSALS:
        matches = [re.search(proposal, name) for name in names]
        if any(
            match is None or not re.search(r"\d", match.string[match.end(1) :]) for match in matches
        ):
            continue
        groups = {match[1] for match in matches if match}
        if 1 < len(groups) <= len(names) / 2:
            return proposal
    return None


def path_below(folder: Path, image: Path) -> Path:
    """Return the path of an image below its folder; a part `*` of the folder means any name."""
    return image.relative_to(Path(*takewhile(lambda part: part != "*", folder.parts)))


def find_groups(root: Path, group_by: str, names: Sequence[str]) -> list[str]:
    r"""Return the group of each image.

    Args:
        root: folder of the data set.
        group_by: a regular expression, whose first group or else whole match is the group of an
            image; or a CSV file below root, whose first column has the images. Its second column,
            or that after a colon, has the groups.
        names: path of each image below the image folder, without extension.

    Raises:
        ConfigError: an invalid regular expression.
        DataError: an image without a group, fewer than two groups, or a faulty CSV file.
    """
    file, _, column = group_by.partition(":")
    if file.endswith(".csv"):
        groups = _from_csv(root / file, column, names)
    else:
        groups = _from_names(compiled(group_by), names)
    if len(set(groups)) < 2:
        raise DataError(
            f"data.group_by {group_by!r} makes one group of all {len(names)} images: "
            f"{one_line(groups[0])!r}.\nExpected: at least two groups, to hold one of them out.\n"
            "Fix: change data.group_by, or set it to null."
        )
    return groups


def compiled(group_by: str) -> re.Pattern[str]:
    """Return the compiled regular expression; ConfigError: it is invalid."""
    try:
        return re.compile(group_by)
    except re.error as error:
        raise ConfigError(
            f"data.group_by {group_by!r} is not a regular expression: {error}.\nExpected: {_FORMS}."
        ) from error


def hold_out(groups: Sequence[str], fraction: float, seed: int) -> set[str]:
    """Return the groups to hold out, whose images are about `fraction` of all images.

    Groups are taken in the order of a hash of their name, if they bring the share closer to
    `fraction`. At least one group is held out, and one is left.
    """
    sizes = Counter(groups)
    wanted = fraction * len(groups)
    order = sorted(sizes, key=lambda group: seeded_hash(seed, group))
    chosen: set[str] = set()
    count = 0
    for group in order:
        closer = abs(count + sizes[group] - wanted) < abs(count - wanted)
        if closer and len(chosen) < len(order) - 1:
            chosen.add(group)
            count += sizes[group]
    return chosen or {min(order, key=lambda group: sizes[group])}


def seeded_hash(seed: int, name: str) -> str:
    """Return a hash that orders names at random, but always in the same way."""
    text = f"{seed}:{name}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _from_names(pattern: re.Pattern[str], names: Sequence[str]) -> list[str]:
    groups, unmatched = [], []
    for name in names:
        match = pattern.search(name)
        group = match and match[1 if pattern.groups else 0]
        if group:
            groups.append(group)
        else:
            unmatched.append(name)
    if unmatched:
        raise DataError(
            f"{len(unmatched)} of {len(names)} images have no group by data.group_by "
            f"{pattern.pattern!r}: {some(unmatched)}.\n"
            "Expected: a match in the path of each image below image_folder, without extension.\n"
            "Fix: change data.group_by, or rename the images."
        )
    return groups


def _from_csv(path: Path, column: str, names: Sequence[str]) -> list[str]:
    group_of = _read_csv(path, column)
    if missing := [name for name in names if _key(name, group_of) is None]:
        raise DataError(
            f"{path} has no group for {len(missing)} of {len(names)} images: {some(missing)}.\n"
            "Expected: a line for each image, with its path below image_folder.\n"
            "Fix: add the lines."
        )
    return [group_of[_key(name, group_of) or ""] for name in names]


def _key(name: str, group_of: Mapping[str, str]) -> str | None:
    return next((key for key in (name, PurePosixPath(name).name) if key in group_of), None)


def _read_csv(path: Path, column: str) -> dict[str, str]:
    """Return the group of each image, by path without extension."""
    if not path.is_file():
        raise DataError(
            f"The file {path.absolute()} of data.group_by does not exist.\n"
            "Expected: a CSV file below data.root, with a header and a line for each image."
        )
    header, *rows = list(csv.reader(path.read_text("utf-8-sig", "replace").splitlines())) or [[]]
    header = [cell.strip() for cell in header]
    if len(header) < 2 or (column and column not in header[1:]):
        raise DataError(
            f"{path}, line 1 has no column {one_line(column) or 'of groups'}: {some(header, 9)}.\n"
            "Expected: a header such as image,patient. Fix: correct it, or data.group_by."
        )
    place = header.index(column) if column else 1
    groups: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        if not any(cell.strip() for cell in row):
            continue
        group = row[place].strip() if len(row) > place else ""
        image = PurePosixPath(row[0].strip())
        name = str(image.with_suffix("") if image.suffix.lower() in SUFFIXES else image)
        if not group or groups.setdefault(name, group) != group:
            fault = "has no group" if not group else f"has another group for {one_line(name)}"
            raise DataError(
                f"{path}, line {number} {fault}.\nExpected: one group for each image.\n"
                "Fix: correct the line."
            )
    return groups
