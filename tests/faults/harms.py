"""What happens to image and mask files in the world: each harm is done to one pair."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

SIZE = (40, 56)
CLASSES = 5

RIGHT, NAMED, EITHER, ROT = "right", "named", "either", "rot"


@dataclass
class Pair:
    """An image and its mask, and what is to become of them.

    Attributes:
        image: its file.
        mask: its file.
        rgb: (H, W, 3), what is right to read of the image.
        ids: (H, W), what is right to read of the mask.
        draw: draws where and how much.
        how: what was done.
        due: "right" (read as `rgb` and `ids`), "named" (with its fault), "either" of these, or
            "rot": named under a manifest, which alone can tell.
        near: how far colours may be off, for decoders that round differently.
        noted: sha256 of both files are known as they are after the harm, not before.
    """

    image: Path
    mask: Path
    rgb: np.ndarray
    ids: np.ndarray
    draw: random.Random
    how: str = ""
    due: str = NAMED
    near: int = 0
    noted: bool = True

    def either(self) -> Path:
        """Return one of the two files."""
        return self.draw.choice([self.image, self.mask])

    def picture(self) -> Image.Image:
        """Return the image, to be saved in another way."""
        return Image.fromarray(self.rgb)


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


def _bytes(change: Callable[[bytearray, random.Random], Any], path: Path, pair: Pair) -> None:
    """Change the bytes of a file; they are not what they were when they were noted."""
    data = bytearray(path.read_bytes())
    change(data, pair.draw)
    path.write_bytes(data)
    pair.noted = False


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


def _double(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    data[start:start] = data[start : start + draw.randrange(1, 100)]


def damaged(change: Callable[[bytearray, random.Random], Any], pair: Pair) -> None:
    """Change bytes of the image or of the mask."""
    pair.due = EITHER
    _bytes(change, pair.either(), pair)


def rot(pair: Pair) -> None:
    """Change bytes of a JPEG, which is often decoded all the same."""
    pair.image.unlink()
    pair.image = pair.image.with_suffix(".jpg")
    pair.picture().save(pair.image, quality=90, progressive=pair.draw.random() < 0.3)
    pair.due, pair.noted = ROT, False


def rotten(pair: Pair) -> None:
    """Let it rot, after its sum was noted."""
    _bytes(pair.draw.choice([_flip, _zeros]), pair.image, pair)


def header(pair: Pair) -> None:
    """Change a field of a PNG's header, and its checksum with it."""
    pair.due = EITHER
    path = pair.either()
    data = bytearray(path.read_bytes())
    place = pair.draw.randrange(16, 29)
    data[place] = pair.draw.randrange(256)
    _write_header(path, data)


def bomb(pair: Pair) -> None:
    """Claim to be huge."""
    side = pair.draw.choice([14_000, 30_000, 40_000, 2**31 - 1])
    path = pair.either()
    if path == pair.image and pair.draw.random() < 0.3:
        buffer = io.BytesIO()
        pair.picture().save(buffer, "JPEG")
        data = bytearray(buffer.getvalue())
        start = data.find(b"\xff\xc0") + 5
        data[start : start + 4] = struct.pack(">HH", 40_000, 40_000)
        path.write_bytes(data)
        return
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    _write_header(path, data)


def _write_header(path: Path, data: bytearray) -> None:
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)


def mode(name: str, pair: Pair) -> None:
    """Save the image in another mode; its colours stay what they become."""
    picture = pair.picture().convert("RGB" if name == "RGBA" else name)
    pair.rgb, pair.due = np.asarray(picture.convert("RGB")), RIGHT
    if name in ("LA", "RGBA"):
        picture.putalpha(Image.fromarray(pair.ids * 50))
    picture.save(pair.image)


def transparent(pair: Pair) -> None:
    """Declare a colour transparent; it stays a colour."""
    pair.due = RIGHT
    if pair.draw.random() < 0.5:
        pair.picture().save(pair.image, transparency=tuple(map(int, pair.rgb[0, 0])))
        return
    picture = pair.picture().quantize(16)
    pair.rgb = np.asarray(picture.convert("RGB"))
    picture.save(pair.image, transparency=bytes(range(0, 256, 16)))


def deep_image(pair: Pair) -> None:
    """16 bits a channel, which become 8."""
    deep = pair.rgb[..., 0].astype(np.uint16) << 8 | pair.rgb[..., 1]
    Image.fromarray(deep).save(pair.image)
    pair.rgb, pair.due = np.repeat((deep // 257).astype(np.uint8)[..., None], 3, -1), RIGHT


def deep_mask(pair: Pair) -> None:
    """16 bits a pixel: small ids are ids, others are none."""
    small = pair.draw.random() < 0.5
    pair.due = RIGHT if small else NAMED
    Image.fromarray(pair.ids.astype(np.uint16) * (1 if small else 256)).save(pair.mask)


def few_bits(pair: Pair) -> None:
    """Masks of one bit a pixel, or of a palette of two or four bits."""
    pair.due, bits = RIGHT, pair.draw.choice([1, 2, 4])
    pair.ids = pair.ids % 2 if bits == 1 else np.minimum(pair.ids, 2**bits - 1)
    if bits == 1:
        Image.fromarray(pair.ids > 0).save(pair.mask)
    else:
        _palette(pair).save(pair.mask, bits=bits)


def palette_mask(pair: Pair) -> None:
    """A mask with colours, more of them than there are ids, some transparent."""
    pair.due = RIGHT
    _palette(pair).save(pair.mask, transparency=bytes(200), bits=8)


def _palette(pair: Pair) -> Image.Image:
    picture = Image.frombytes("P", pair.ids.shape[::-1], pair.ids.tobytes())
    picture.putpalette([pair.draw.randrange(256) for _ in range(768)])
    return picture


def jpeg(pair: Pair) -> None:
    """Save the image as a JPEG of some kind, under its name or another."""
    options: dict[str, Any] = pair.draw.choice(
        [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True, "quality": 40}]
    )
    buffer = io.BytesIO()
    pair.picture().convert(pair.draw.choice(["RGB", "L", "CMYK"])).save(buffer, "JPEG", **options)
    pair.image.write_bytes(buffer.getvalue() + b"maker's trailer" * pair.draw.randrange(2))
    pair.rgb, pair.due = np.asarray(Image.open(buffer).convert("RGB")), RIGHT
    pair.near = 2


def cut_jpeg(pair: Pair) -> None:
    """Cut a JPEG off."""
    pair.picture().save(pair.image, "JPEG")
    _bytes(_truncate, pair.image, pair)


def exif(pair: Pair) -> None:
    """Ask by EXIF for a rotation, which is applied unless the mask has the stored size alone."""
    turned, pair.due, pair.near = Image.Exif(), RIGHT, 2
    turned[0x112] = orientation = pair.draw.randrange(2, 9)
    pair.picture().save(pair.image, pair.draw.choice(["PNG", "JPEG"]), exif=turned)
    picture = Image.open(pair.image)
    if orientation < 5:
        picture = ImageOps.exif_transpose(picture)
    pair.rgb = np.asarray(picture.convert("RGB"))


def other_size(pair: Pair) -> None:
    """Cut rows off the mask, or turn it."""
    rows = pair.ids[: pair.draw.randrange(1, SIZE[0])]
    Image.fromarray(pair.draw.choice([rows, pair.ids.T])).save(pair.mask)


def wrong_id(pair: Pair) -> None:
    """Let one pixel hold an id that means no class."""
    ids = pair.ids.copy()
    ids[pair.draw.randrange(SIZE[0]), pair.draw.randrange(SIZE[1])] = pair.draw.randrange(5, 255)
    Image.fromarray(ids).save(pair.mask)


def coloured_mask(pair: Pair) -> None:
    """Save the mask with channels that ids do not have."""
    mode = pair.draw.choice(["RGB", "RGBA", "LA"])
    Image.fromarray(pair.ids).convert(mode).save(pair.mask)


def jpeg_mask(pair: Pair) -> None:
    """Save the mask as a JPEG under its old name."""
    Image.fromarray(pair.ids).save(pair.mask, "JPEG")


def other_format(pair: Pair) -> None:
    """Save a file in another format under its old name."""
    kind, buffer = pair.draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"]), io.BytesIO()
    pair.picture().save(buffer, kind)
    pair.either().write_bytes(buffer.getvalue() + b"\xff\xd9" * pair.draw.randrange(2))


def no_image(pair: Pair) -> None:
    """Put something else in place of a file."""
    other = [b"", bytes(500), b"<html>\x1b]0;404\x07</html>", os.urandom(900), b"\x89PNG\r\n\x1a\n"]
    pair.either().write_bytes(pair.draw.choice(other))


def no_file(pair: Pair) -> None:
    """Put what is no file, or nothing, in place of one."""
    path = pair.either()
    path.unlink()
    kind = pair.draw.choice(["pipe", "folder", "gone", "/dev/zero", "/dev/tty", "nowhere", "loop"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "gone":
        path.symlink_to(path.name if kind == "loop" else kind)


def unreadable(pair: Pair) -> None:
    """Take the right to read a file away, from whom that can be taken."""
    path = pair.either()
    path.chmod(0)
    pair.due = RIGHT if os.access(path, os.R_OK) else NAMED


def sparse(pair: Pair) -> None:
    """Let a file claim a TB that is not there."""
    os.truncate(pair.either(), 2**40)


def linked(pair: Pair) -> None:
    """Put a link out of the root in place of a file: many data sets are made of these."""
    path, pair.due = pair.either(), RIGHT
    elsewhere = path.parents[2] / "elsewhere" / path.parent.name / path.name
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def animated(pair: Pair) -> None:
    """Make an animation of a file, with the picture or without: decoders disagree which counts."""
    path = pair.either()
    first = Image.open(path)
    first.load()
    others = [Image.fromarray(255 - np.asarray(first))] * 2
    still = pair.draw.random() < 0.5
    first.save(path, save_all=True, append_images=others, duration=90, default_image=still)


def rubbish(pair: Pair) -> None:
    """Write behind the end of a PNG; that changes nothing."""
    pair.due = RIGHT
    with pair.either().open("ab") as file:
        file.write(os.urandom(pair.draw.randrange(1, 4000)))


def renamed(pair: Pair) -> None:
    """Give the image a name that ends lines, or commands a terminal, and perhaps a fault."""
    name = pair.draw.choice(["two\nlines", "\x1b]0;title\x07", "a, b 'c\"", "\u202egnp.", "%s{0}"])
    path = pair.image.with_name(f"{pair.image.stem}{name}.png")
    pair.image = pair.image.rename(path)
    pair.due = RIGHT
    if pair.draw.random() < 0.5:
        pair.due = NAMED
        path.write_bytes(b"")


HARMS: dict[str, Callable[[Pair], None]] = {
    "truncated": partial(damaged, _truncate),
    "flipped bit": partial(damaged, _flip),
    "block of zeros": partial(damaged, _zeros),
    "lost bytes": partial(damaged, _lose),
    "doubled bytes": partial(damaged, _double),
    "rot in a JPEG": rot,
    "header": header,
    "bomb": bomb,
    **{f"image of mode {name}": partial(mode, name) for name in ("L", "P", "RGBA", "LA", "1")},
    "transparent colour": transparent,
    "16-bit image": deep_image,
    "16-bit mask": deep_mask,
    "mask of few bits": few_bits,
    "palette mask": palette_mask,
    "JPEG": jpeg,
    "JPEG cut off": cut_jpeg,
    "EXIF": exif,
    "mask of another size": other_size,
    "unknown id": wrong_id,
    "coloured mask": coloured_mask,
    "JPEG mask": jpeg_mask,
    "other format": other_format,
    "no image": no_image,
    "no file": no_file,
    "no right to read": unreadable,
    "sparse file": sparse,
    "link out of the root": linked,
    "animation": animated,
    "rubbish behind the end": rubbish,
    "name": renamed,
}
