"""Dirty data: image and mask pairs, each harmed in one way, read as training reads them."""

import io
import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrseg.data.base import MaskReader, id_table
from hrseg.data.check import Split, look_through
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.loader import WatchedLoader
from hrseg.data.manifest import Manifest, digest_of, write_manifest
from tests.faults import Tally

SIZE = (40, 56)
CLASSES = 5
READER = MaskReader(id_table(CLASSES, ignore_ids=[255]), "Add it to ignore_ids.")
PATIENCE = 20.0  # seconds for a pair

Expected = tuple[np.ndarray, np.ndarray] | None  # None: only an error that names the file is right


def pairs(count: int, folder: Path, seed: int) -> Tally:
    """Harm each of `count` pairs; each is read right, or named with its fault and skipped."""
    draw, tally = random.Random(seed), Tally()
    made = [make(folder / "data", number, draw) for number in range(count)]
    files = [(image, mask) for _, image, mask, _ in made]
    dataset = SegmentationDataset(files, READER)
    dataset.skips = True
    dataset.manifest = Manifest.read(folder / "data" / "hrseg.sha256", folder / "data")
    looks = Split("all", files)
    looks_of = [dataset, SegmentationDataset(files, READER)]
    looks_of[1].skips = True  # as most will train: without a manifest
    read = [list(WatchedLoader(d, PATIENCE, num_workers=1, batch_size=None)) for d in looks_of]
    look_through([looks], READER, [(0, 0, 0)] * CLASSES, workers=1, patience=PATIENCE)
    faulty = {fault.file for fault in looks.faults}
    for (how, image, mask, expected), item, bare in zip(made, *read, strict=True):
        fault = judge(item, expected, (image, mask)) if how != JPEG else rotten(item, image)
        if how != JPEG:
            fault = fault or judge(bare, expected, (image, mask))
            if bool(bare["fault"]) != bool(faulty & {image, mask}):
                fault = fault or "`data check` says otherwise than training"
        tally.record(fault and f"{how} {image.name}: {fault}")
    return tally


def judge(item: dict[str, Any], expected: Expected, files: tuple[Path, Path]) -> str | None:
    """Say what is wrong with what was read."""
    if item["fault"]:
        named = any(str(file) in item["fault"] for file in files)
        black = not item["image"].any() and bool(item["mask"].eq(255).all())
        return None if named and black else f"not named: {item['fault']}"
    if expected is None:
        return "was read in silence"
    got = (item["image"].permute(1, 2, 0).numpy(), item["mask"].numpy())
    same = all(np.array_equal(a, b) for a, b in zip(got, expected, strict=True))
    return None if same else "other values were read in silence"


def rotten(item: dict[str, Any], image: Path) -> str | None:
    """JPEGs may decode to other pixels without an error: the manifest has to find it."""
    found = str(image) in item["fault"] and "has changed" in item["fault"]
    return None if found else f"the manifest found nothing: {item['fault']!r}"


def make(root: Path, number: int, draw: random.Random) -> tuple[str, Path, Path, Expected]:
    """Write a pair, note it in the manifest, harm it; return how, the files, what is right."""
    image, mask = root / "images" / f"{number}.png", root / "masks" / f"{number}.png"
    random_pixels = np.random.default_rng(draw.randrange(2**32))
    rgb = random_pixels.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    ids = random_pixels.integers(0, CLASSES, SIZE, dtype=np.uint8)
    for path, array in ((image, rgb), (mask, ids)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
    how = draw.choice(list(HARMS))
    if how == JPEG:
        image = image.with_suffix(".jpg")
        Image.fromarray(rgb).save(image, quality=90)
    note(root, image, mask)
    harmed = HARMS[how](image, mask, rgb, ids, draw)
    if harmed is not None and how not in ROT:
        note(root, image, mask)  # right in another way, and meant so
    return how, image, mask, harmed


def note(root: Path, *files: Path) -> None:
    """Put files into the manifest."""
    path = root / "hrseg.sha256"
    known = Manifest.read(path, root).digests if path.exists() else {}
    sums = {root / name: digest for name, digest in known.items()}
    sums.update({file: digest_of(file) for file in files})
    write_manifest(path, root, sums.items())


def truncate(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def flip_bit(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def zero_block(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = draw.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def of_either(harm: Callable[[Path, random.Random], None]) -> Callable[..., Expected]:
    """Harm the bytes of the image or of the mask: what can still be read is what was there."""

    def harmed(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
        harm(draw.choice([image, mask]), draw)
        return rgb, ids  # else an error

    return harmed


def as_mode(mode: str) -> Callable[..., Expected]:
    """Save the image in another mode; its colours stay what they are."""

    def harmed(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
        picture = Image.fromarray(rgb).convert("RGB" if mode == "RGBA" else mode)
        if mode in ("RGBA", "LA"):
            picture.putalpha(draw.randrange(256))
        picture.save(image)
        return np.asarray(picture.convert("RGB")), ids

    return harmed


def sixteen_bits(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """A 16-bit grey image, read as 8 bits; as a mask its large values are refused."""
    grey = (rgb[..., 0].astype(np.uint16) << 8) | rgb[..., 1]
    if draw.random() < 0.5:
        Image.fromarray(grey).save(image)
        return np.repeat((grey // 257).astype(np.uint8)[..., None], 3, -1), ids
    Image.fromarray(grey | 256).save(mask)
    return None


def rotated_by_exif(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """EXIF that asks for a rotation; the house's rule is to use what is stored."""
    exif = Image.Exif()
    exif[0x112] = draw.randrange(2, 9)
    Image.fromarray(rgb).save(image, exif=exif)
    return rgb, ids


def other_size(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    Image.fromarray(ids[: draw.randrange(1, SIZE[0])]).save(mask)


def wrong_ids(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    ids = ids.copy()
    ids[draw.randrange(SIZE[0]), draw.randrange(SIZE[1])] = draw.randrange(CLASSES, 255)
    Image.fromarray(ids).save(mask)


def colored_mask(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    Image.fromarray(np.repeat(ids[..., None], 3, -1)).save(mask)


def palette_mask(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    picture = Image.fromarray(ids).convert("P")
    picture.putpalette([draw.randrange(256) for _ in range(768)])
    picture.putdata(ids.ravel().tolist())
    picture.save(mask)
    return rgb, ids


def jpeg_mask(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    Image.fromarray(ids).save(mask, "JPEG")


def other_format(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    picture, buffer = Image.fromarray(rgb), io.BytesIO()
    picture.save(buffer, draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM"]))
    draw.choice([image, mask]).write_bytes(buffer.getvalue())


def empty(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    draw.choice([image, mask]).write_bytes(b"" if draw.random() < 0.5 else bytes(500))


def text(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    draw.choice([image, mask]).write_text("<html>\x1b]0;404 not found\x07</html>")


def bomb(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """A header that claims 40,000 x 40,000, with a right CRC."""
    path = draw.choice([image, mask])
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 40_000, 40_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)


def pipe(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    path = draw.choice([image, mask])
    path.unlink()
    os.mkfifo(path)


def folder_of_that_name(
    image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random
) -> Expected:
    path = draw.choice([image, mask])
    path.unlink()
    path.mkdir()


def gone(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    draw.choice([image, mask]).unlink()


def device(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    path = draw.choice([image, mask])
    path.unlink()
    path.symlink_to(draw.choice(["/dev/zero", "/dev/null", "/dev/tty", "nowhere"]))


def link_elsewhere(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """A link out of the root to the right file is the right file: many data sets are made so."""
    elsewhere = image.parents[2] / "elsewhere" / image.name
    elsewhere.parent.mkdir(exist_ok=True)
    image.rename(elsewhere)
    image.symlink_to(elsewhere)
    return rgb, ids


def animated(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """The first picture of an animation counts."""
    frames = [Image.fromarray(rgb), Image.fromarray(255 - rgb)]
    frames[0].save(image, save_all=True, append_images=frames[1:], duration=100)
    return rgb, ids


def rubbish(image: Path, mask: Path, rgb: Any, ids: Any, draw: random.Random) -> Expected:
    """Rubbish behind the end of a PNG changes nothing."""
    with image.open("ab") as file:
        file.write(os.urandom(draw.randrange(1, 4000)))
    return rgb, ids


JPEG = "rot in a JPEG"
ROT = ("truncated", "flipped bit", "block of zeros", JPEG)
HARMS: dict[str, Callable[..., Expected]] = {
    "truncated": of_either(truncate),
    "flipped bit": of_either(flip_bit),
    "block of zeros": of_either(zero_block),
    JPEG: lambda image, mask, rgb, ids, draw: flip_bit(image, draw),
    "grey image": as_mode("L"),
    "palette image": as_mode("P"),
    "image with alpha": as_mode("RGBA"),
    "grey image with alpha": as_mode("LA"),
    "black and white image": as_mode("1"),
    "16 bits": sixteen_bits,
    "EXIF": rotated_by_exif,
    "mask of another size": other_size,
    "unknown id": wrong_ids,
    "coloured mask": colored_mask,
    "palette mask": palette_mask,
    "JPEG mask": jpeg_mask,
    "other format": other_format,
    "empty": empty,
    "text": text,
    "bomb": bomb,
    "pipe": pipe,
    "folder": folder_of_that_name,
    "gone": gone,
    "device or dead link": device,
    "link out of the root": link_elsewhere,
    "animation": animated,
    "rubbish behind the end": rubbish,
}
