"""Advice of `hrseg init` on the split: near neighbours on both sides, and groups of images."""

import json
from dataclasses import dataclass
from pathlib import Path

from hrseg.data.analysis.folder_layout import Layout
from hrseg.data.analysis.leakage import Leakage, find_leakage, read_pictures
from hrseg.data.grouping import path_below, propose_groups

_READ = 1000  # images of each side
_PIXELS = 2**30  # of each side, so that the reading takes seconds
_FEWEST = 9  # compared images; groups of fewer may leave less than a batch to train on


@dataclass(frozen=True)
class SplitAdvice:
    """Near neighbours between the splits, and suggested groups.

    Attributes:
        has_splits: whether the folder has splits; without, a share is held out.
        leakage: neighbours of the second split in the first; without splits, of every second image
            in the others.
        group_by: value of `data.group_by` that fits the names; None: none, or splits.
    """

    has_splits: bool
    leakage: Leakage
    group_by: str | None

    @property
    def warnings(self) -> list[str]:
        """Warnings for the head of the config, one per line."""
        if not self.leakage.neighbours or (self.group_by is not None and self._recorded):
            return []
        if self.has_splits:
            return [self.leakage.message().replace("\n", " ")]
        return [
            f"{self.leakage.share:.1%} of the images have a near neighbour among the others: "
            "scores on a random share are too high; keep recordings together with data.group_by "
            "or list files"
        ]

    @property
    def lines(self) -> list[str]:
        """Config line of `group_by`; a comment if the pictures confirm no recordings."""
        if self.group_by is None:
            return []
        line = f"group_by: {json.dumps(self.group_by)}"
        if self._recorded:
            return [f"  {line}  # keeps the frames of a recording on one side of val_fraction"]
        return [f"  # {line}  # if these groups of names are videos, patients or scenes"]

    @property
    def _recorded(self) -> bool:
        """Whether most images are frames of recordings, by their pictures."""
        return self.leakage.total >= _FEWEST and self.leakage.share > 0.5


def advise_split(root: Path, layout: Layout, pixels: float) -> SplitAdvice:
    """Compare the pictures of both sides of the split, and the names of all images.

    Of many images, the first ones are read: at most 1,000 of each side, and fewer large images.
    `hrseg data check` reads all.

    Args:
        root: folder of the data set.
        layout: its images.
        pixels: usual number of pixels of an image.
    """
    count = max(_FEWEST, min(_READ, int(_PIXELS / pixels)))
    sides = [[image for image, _ in pairs] for pairs in layout.pairs.values()]
    if layout.splits:
        train, other, group_by = sides[0], sides[1], None
    else:
        train, other = sides[0][::2], sides[0][1::2]
        base = root if layout.pair_list else root / layout.image_folder
        paths = [path_below(base, image) for image in sides[0]]
        group_by = propose_groups([path.with_suffix("").as_posix() for path in paths])
    names = layout.splits or ("train", "val")
    leakage = find_leakage(
        read_pictures(root, names[0], train[:count]), read_pictures(root, names[1], other[:count])
    )
    return SplitAdvice(bool(layout.splits), leakage, group_by)
