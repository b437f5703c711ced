"""Harms that happen to image and mask files; each changes one pair."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = (40, 56)
CLASSES = 5
RIGHT, NAMED, EITHER, ROT = "right", "named", "either", "rot"


@dataclass
class Pair:
    """An image and its mask, and the expected result of reading them.

    Attributes:
        image: its file.
        mask: its file.
        rgb: (H, W, 3), the expected image.
        ids: (H, W), the expected mask.
        draw: draws the place and the amount of the harm.
        how: a key of HARMS.
        due: RIGHT (read as `rgb` and `ids`), NAMED (an error with the file's name), EITHER, or
            ROT: named if there is a manifest, which alone can tell.
        near: the largest difference of colours, for decoders that round differently.
        listed: whether the manifest has the sums of the harmed files, not of those before.
    """

    image: Path
    mask: Path
    rgb: np.ndarray
    ids: np.ndarray
    draw: random.Random
    how: str
    due: str = NAMED
    near: int = 0
    listed: bool = True

    def either(self) -> Path:
        return self.draw.choice([self.image, self.mask])

    def picture(self) -> Image.Image:
        return Image.fromarray(self.rgb)


Harm = Callable[[Pair], Any]
HARMS: dict[str, Harm] = {}


def harm(due: str = NAMED, name: str = "") -> Callable[[Harm], Harm]:
    """Register a harm with the expected result."""

    def register(change: Harm) -> Harm:
        def done(pair: Pair) -> None:
            pair.due = due
            change(pair)

        HARMS[name or change.__name__] = done
        return change

    return register


def make(folder: Path, number: int, draw: random.Random, how: str) -> Pair:
    """Write a pair."""
    values = np.random.default_rng(draw.randrange(2**32))
    smooth = Image.fromarray(values.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    rgb = np.asarray(smooth.resize(SIZE[::-1], Image.Resampling.BICUBIC))
    ids = values.integers(0, CLASSES, SIZE, dtype=np.uint8)
    image, mask = folder / "images" / f"{number}.png", folder / "masks" / f"{number}.png"
    for path, array in ((image, rgb), (mask, ids)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, compress_level=draw.choice([0, 1, 6, 9]))
    return Pair(image, mask, rgb, ids, draw, how)


def _truncate(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def _flip(data: bytearray, draw: random.Random) -> None:
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _zeros(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))


def _lose(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.randrange(1, 100)]


def _edit(pair: Pair, path: Path, change: Callable[[bytearray, random.Random], Any]) -> None:
    data = bytearray(path.read_bytes())
    change(data, pair.draw)
    path.write_bytes(data)
    pair.listed = False


for _change in (_truncate, _flip, _zeros, _lose):
    harm(EITHER, f"bytes: {_change.__name__[1:]}")(
        lambda pair, change=_change: _edit(pair, pair.either(), change)
    )


@harm(ROT)
def rot_in_a_jpeg(pair: Pair) -> None:
    """Write a JPEG, which `rotten` changes after its sum was listed."""
    pair.image.unlink()
    pair.image = pair.image.with_suffix(".jpg")
    pair.picture().save(pair.image, quality=90, progressive=pair.draw.random() < 0.3)
    pair.listed = False


def rotten(pair: Pair) -> None:
    """Change bytes of the JPEG, which is often decoded all the same."""
    _edit(pair, pair.image, pair.draw.choice([_flip, _zeros]))


@harm(EITHER)
def header(pair: Pair) -> None:
    """Change a field of a PNG's header, and its checksum."""
    path = pair.either()
    data = bytearray(path.read_bytes())
    start = pair.draw.randrange(16, 29)
    data[start] = pair.draw.randrange(256)
    _write_header(path, data)


@harm()
def bomb(pair: Pair) -> None:
    """Write a huge size into the header of a PNG or JPEG."""
    side = pair.draw.choice([14_000, 30_000, 40_000, 2**31 - 1])
    path = pair.either()
    if path == pair.image and pair.draw.random() < 0.3:
        data = bytearray(_encoded(pair.picture(), "JPEG"))
        start = data.find(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 40_000, 40_000)
        path.write_bytes(data)
    else:
        data = bytearray(path.read_bytes())
        data[16:24] = struct.pack(">II", side, side)
        _write_header(path, data)


def _write_header(path: Path, data: bytearray) -> None:
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)


def _encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


@harm(RIGHT)
def image_of_another_mode(pair: Pair) -> None:
    name = pair.draw.choice(["L", "P", "RGBA", "LA", "1"])
    picture = pair.picture().convert("RGB" if name == "RGBA" else name)
    pair.rgb = np.asarray(picture.convert("RGB"))
    if name in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(pair.ids * 50))
    picture.save(pair.image)


@harm(RIGHT)
def transparent_colour(pair: Pair) -> None:
    if pair.draw.random() < 0.5:
        pair.picture().save(pair.image, transparency=tuple(map(int, pair.rgb[0, 0])))
    else:
        picture = pair.picture().quantize(16)
        pair.rgb = np.asarray(picture.convert("RGB"))
        picture.save(pair.image, transparency=bytes(range(0, 256, 16)))


@harm(RIGHT)
def image_of_16_bits(pair: Pair) -> None:
    """Its 16 bits are scaled to 8."""
    deep = pair.rgb[..., 0].astype(np.uint16) << 8 | pair.rgb[..., 1]
    Image.fromarray(deep).save(pair.image)
    pair.rgb = np.repeat((deep // 257).astype(np.uint8)[..., None], 3, -1)


@harm(RIGHT)
def mask_of_16_bits(pair: Pair) -> None:
    """Small ids are ids; others are unknown."""
    small = pair.draw.random() < 0.5
    pair.due = RIGHT if small else NAMED
    Image.fromarray(pair.ids.astype(np.uint16) * (1 if small else 256)).save(pair.mask)


@harm(RIGHT)
def mask_of_few_bits(pair: Pair) -> None:
    """One bit a pixel, or a palette of 2, 4 or 8 bits with transparent colours."""
    bits = pair.draw.choice([1, 2, 4, 8])
    pair.ids = pair.ids % 2 if bits == 1 else np.minimum(pair.ids, 2**bits - 1)
    if bits == 1:
        Image.fromarray(pair.ids > 0).save(pair.mask)
        return
    picture = Image.frombytes("P", pair.ids.shape[::-1], pair.ids.tobytes())
    picture.putpalette([pair.draw.randrange(256) for _ in range(768)])
    picture.save(pair.mask, bits=bits, transparency=bytes(200 if bits == 8 else 0))


@harm(RIGHT)
def jpeg(pair: Pair) -> None:
    """Save the image as a JPEG of some kind under its old name, perhaps with a trailer."""
    options: dict[str, Any] = pair.draw.choice(
        [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True, "quality": 40}]
    )
    picture = pair.picture().convert(pair.draw.choice(["RGB", "L", "CMYK"]))
    data = _encoded(picture, "JPEG", **options)
    pair.image.write_bytes(data + b"maker's trailer" * pair.draw.randrange(2))
    pair.rgb, pair.near = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), 2


@harm()
def jpeg_cut_off(pair: Pair) -> None:
    pair.picture().save(pair.image, "JPEG")
    _edit(pair, pair.image, _truncate)


@harm(RIGHT)
def exif(pair: Pair) -> None:
    """EXIF asks for a rotation; the stored pixels are read, as those of the mask."""
    turned = Image.Exif()
    turned[0x112] = pair.draw.randrange(2, 9)
    if pair.draw.random() < 0.5:
        pair.picture().save(pair.image, exif=turned)
    else:
        pair.picture().save(pair.image, "JPEG", exif=turned)
        pair.rgb, pair.near = np.asarray(Image.open(pair.image).convert("RGB")), 2


@harm()
def mask_of_another_size(pair: Pair) -> None:
    rows = pair.ids[: pair.draw.randrange(1, SIZE[0])]
    Image.fromarray(pair.draw.choice([rows, pair.ids.T])).save(pair.mask)


@harm()
def unknown_id(pair: Pair) -> None:
    ids = pair.ids.copy()
    ids[pair.draw.randrange(SIZE[0]), pair.draw.randrange(SIZE[1])] = pair.draw.randrange(5, 255)
    Image.fromarray(ids).save(pair.mask)


@harm()
def coloured_mask(pair: Pair) -> None:
    mode = pair.draw.choice(["RGB", "RGBA", "LA"])
    Image.fromarray(pair.ids).convert(mode).save(pair.mask)


@harm()
def jpeg_mask(pair: Pair) -> None:
    Image.fromarray(pair.ids).save(pair.mask, "JPEG")


@harm()
def other_format(pair: Pair) -> None:
    """Save a file in another format under its old name."""
    kind = pair.draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
    pair.either().write_bytes(_encoded(pair.picture(), kind))


@harm()
def other_content(pair: Pair) -> None:
    other = [b"", bytes(500), b"<html>\x1b]0;404\x07</html>", os.urandom(900), b"\x89PNG\r\n\x1a\n"]
    pair.either().write_bytes(pair.draw.choice(other))


@harm()
def not_a_file(pair: Pair) -> None:
    """Remove a file, and perhaps put a pipe, a folder or a link in its place."""
    path = pair.either()
    path.unlink()
    kind = pair.draw.choice(["pipe", "folder", "gone", "/dev/zero", "/dev/tty", "nowhere", "loop"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.symlink_to(path.name if kind == "loop" else kind)


@harm()
def no_right_to_read(pair: Pair) -> None:
    path = pair.either()
    path.chmod(0)
    pair.due = RIGHT if os.access(path, os.R_OK) else NAMED  # root may read everything


@harm()
def sparse_file(pair: Pair) -> None:
    os.truncate(pair.either(), 2**40)


@harm(RIGHT)
def link_out_of_the_root(pair: Pair) -> None:
    path = pair.either()
    elsewhere = path.parents[2] / "elsewhere" / path.parent.name / path.name
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@harm()
def animation(pair: Pair) -> None:
    """Decoders disagree which picture of an animated PNG counts."""
    path = pair.either()
    first = Image.open(path)
    first.load()
    others = [Image.fromarray(255 - np.asarray(first))] * 2
    still = pair.draw.random() < 0.5
    first.save(path, save_all=True, append_images=others, duration=90, default_image=still)


@harm(RIGHT)
def bytes_after_the_end(pair: Pair) -> None:
    with pair.either().open("ab") as file:
        file.write(os.urandom(pair.draw.randrange(1, 4000)))


@harm(RIGHT)
def name(pair: Pair) -> None:
    """A name with newlines or terminal commands; half the time the file is damaged too."""
    name = pair.draw.choice(["two\nlines", "\x1b]0;title\x07", "a, b 'c\"", "\u202egnp.", "%s{0}"])
    path = pair.image.with_name(f"{pair.image.stem}{name}.png")
    pair.image = pair.image.rename(path)
    if pair.draw.random() < 0.5:
        pair.due = NAMED
        path.write_bytes(b"")
