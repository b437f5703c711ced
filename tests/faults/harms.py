"""Kinds of damage to image and mask files. Each changes one pair."""

import os
import random
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (40, 56)
CLASSES = 5
# Expected results: read correctly, an error with the file's name, either of these, or detected only
# by a manifest.
RIGHT, NAMED, EITHER, ROT = "right", "named", "either", "rot"


@dataclass
class Pair:
    image: Path
    mask: Path
    rgb: np.ndarray  # (H, W, 3), expected
    ids: np.ndarray  # (H, W), expected
    draw: random.Random
    how: str  # a key of HARMS
    due: str = NAMED  # expected result
    listed: bool = True  # whether the manifest contains the checksums of the damaged files

    def either(self):
        return self.draw.choice([self.image, self.mask])

    def edit(self, path, change):
        data = bytearray(path.read_bytes())
        change(data, self.draw)
        path.write_bytes(data)
        self.listed = False

    def harm(self):
        self.due, change = HARMS[self.how]
        change(self)


def make(folder, number, draw, how):
    values = np.random.default_rng(draw.randrange(2**32))
    smooth = Image.fromarray(values.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    rgb = np.asarray(smooth.resize(SIZE[::-1], Image.Resampling.BICUBIC))
    ids = values.integers(0, CLASSES, SIZE, dtype=np.uint8)
    image, mask = folder / "images" / f"{number}.png", folder / "masks" / f"{number}.png"
    for path, array in ((image, rgb), (mask, ids)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, compress_level=draw.choice([0, 1, 6, 9]))
    return Pair(image, mask, rgb, ids, draw, how)


def truncated(data, draw):
    del data[draw.randrange(len(data)) :]


def flipped_bit(data, draw):
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def block_of_zeros(data, draw):
    start = draw.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))


def _header(data, draw):
    """Change a field of a PNG header, and update its checksum."""
    data[draw.randrange(16, 29)] = draw.randrange(256)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))


def _bomb(data, draw):
    """Write a huge size into the header of a PNG."""
    data[16:24] = struct.pack(">I", draw.choice([14_000, 40_000, 2**31 - 1])) * 2
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))


def _edits(change):
    return lambda pair: pair.edit(pair.either(), change)


def _jpeg(pair):
    pair.image.unlink()
    pair.image = pair.image.with_suffix(".jpg")
    Image.fromarray(pair.rgb).save(pair.image, progressive=pair.draw.random() < 0.3)
    pair.listed = False


def rotten(pair):
    """Change bytes of a JPEG, which often still decodes."""
    pair.edit(pair.image, pair.draw.choice([flipped_bit, block_of_zeros]))


def _mask_of_another_size(pair):
    rows = pair.ids[: pair.draw.randrange(1, SIZE[0])]
    Image.fromarray(pair.draw.choice([rows, pair.ids.T])).save(pair.mask)


def _unknown_id(pair):
    ids = pair.ids.copy()
    ids[pair.draw.randrange(SIZE[0]), pair.draw.randrange(SIZE[1])] = pair.draw.randrange(5, 255)
    Image.fromarray(ids).save(pair.mask)


def _coloured_mask(pair):
    Image.fromarray(pair.ids).convert(pair.draw.choice(["RGB", "RGBA", "LA"])).save(pair.mask)


def _other_format(pair):
    """Save a file in another format with an unchanged name."""
    kind = pair.draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
    Image.fromarray(pair.rgb).save(pair.either(), kind)


OTHERS = [b"", bytes(500), b"<html>\x1b]0;404\x07</html>", os.urandom(900), b"\x89PNG\r\n\x1a\n"]


def _not_a_file(pair):
    """Replace a file with a pipe, a folder or a link. The last kind is a link to itself."""
    path = pair.either()
    path.unlink()
    kind = pair.draw.choice(["pipe", "folder", "/dev/zero", "nowhere", path.name])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(kind)


def _link_out_of_the_root(pair):
    path = pair.either()
    elsewhere = path.parents[2] / f"elsewhere-{path.parent.name}-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def _appended(pair):
    with pair.either().open("ab") as file:
        file.write(os.urandom(pair.draw.randrange(1, 4000)))


def _name(pair):
    """Add newlines or terminal commands to a file name, and damage half of the files."""
    part = pair.draw.choice(["two\nlines", "\x1b]0;title\x07", "a, b 'c\"", "\u202egnp.", "%s{0}"])
    pair.image = pair.image.rename(pair.image.with_name(f"{pair.image.stem}{part}.png"))
    if pair.draw.random() < 0.5:
        pair.due = NAMED
        pair.image.write_bytes(b"")


HARMS = {
    "truncated": (EITHER, _edits(truncated)),
    "flipped bit": (EITHER, _edits(flipped_bit)),
    "block of zeros": (EITHER, _edits(block_of_zeros)),
    "header": (EITHER, _edits(_header)),
    "bomb": (NAMED, _edits(_bomb)),
    "rot in a JPEG": (ROT, _jpeg),
    "mask of another size": (NAMED, _mask_of_another_size),
    "unknown id": (NAMED, _unknown_id),
    "coloured mask": (NAMED, _coloured_mask),
    "JPEG mask": (NAMED, lambda pair: Image.fromarray(pair.ids).save(pair.mask, "JPEG")),
    "other format": (NAMED, _other_format),
    "other content": (NAMED, lambda pair: pair.either().write_bytes(pair.draw.choice(OTHERS))),
    "not a file": (NAMED, _not_a_file),
    "sparse file": (NAMED, lambda pair: os.truncate(pair.either(), 2**40)),
    "link out of the root": (RIGHT, _link_out_of_the_root),
    "bytes after the end": (RIGHT, _appended),
    "name": (RIGHT, _name),
}
