"""What is no image file is said before a decoder sees it; nothing is waited for."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hrseg.data.images import LARGEST, header_size, read_file, read_image
from hrseg.data.masks import read_index_mask
from hrseg.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
READERS = (read_file, read_image, read_index_mask, header_size)


def refused(path, reader, words):
    with pytest.raises(DataError, match=words) as error:
        reader(path)
    assert path.name.encode("unicode_escape").decode() in str(error.value)
    assert len(str(error.value).splitlines()) <= 4


@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, reader):
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink("/dev/zero", tmp_path / "device.png")
    os.symlink("loop.png", tmp_path / "loop.png")
    os.symlink("nowhere", tmp_path / "dead.png")
    for name, words in (
        ("folder", "is a folder"),
        ("pipe", "a pipe or a device"),
        ("device", "a pipe or a device"),
        ("loop", "symbolic links"),
        ("dead", "no file"),
        ("gone", "no file"),
    ):
        refused(tmp_path / f"{name}.png", reader, words)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_larger_than_any_image_is_not_read(tmp_path, reader):
    path = tmp_path / "sparse.png"
    Image.fromarray(PIXELS).save(path)
    os.truncate(path, 2**40)
    refused(path, reader, r"1,024.0 GiB are more than an image has")
    os.truncate(path, LARGEST + 1)
    refused(path, reader, "are more than an image has")


@pytest.mark.parametrize("reader", [read_image, read_index_mask, header_size])
@pytest.mark.parametrize("side", [14_000, 30_000, 40_000])
def test_a_header_that_claims_more_than_179_megapixels_is_refused(tmp_path, reader, side):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", side, side)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    refused(path, reader, f"{side**2} pixels. exceeds limit")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000"])
def test_another_format_is_refused_whatever_it_is_called_and_ends_with(tmp_path, kind):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path, kind)
    for tail in (b"", b"\xff\xd9"):  # as a JPEG ends
        path.write_bytes(path.read_bytes() + tail)
        for reader in (read_image, read_index_mask, header_size):
            refused(path, reader, "not an image")


@pytest.mark.parametrize("first", [True, False], ids=["still first", "all frames"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_animation_is_refused_as_decoders_take_different_pictures_of_it(tmp_path, mode, first):
    frames = [Image.fromarray(np.roll(PIXELS, i, 1)).convert("RGB") for i in range(3)]
    frames = [f.quantize(16) if mode == "P" else f.convert(mode) for f in frames]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], default_image=first)
    for reader in (read_image, read_index_mask):
        refused(path, reader, "an animation, not a single picture")


def test_names_stay_in_one_line_and_command_no_terminal(tmp_path):
    path = tmp_path / "line\nbreak\x1b]0;title\x07.png"
    path.write_bytes(b"")
    for reader in (read_image, read_index_mask, header_size):
        with pytest.raises(DataError) as error:
            reader(path)
        lines = str(error.value).splitlines()
        assert len(lines) == 2 and r"line\nbreak\x1b]0;title\x07.png" in lines[0]


def test_whatever_a_decoder_raises_names_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).quantize(4).save(path)  # of 2 bits
    for error in (
        KeyError("x"),
        struct.error("short"),
        zlib.error(),
        IndexError(),
        OverflowError(),
    ):
        monkeypatch.setattr(Image, "open", _raising(error))
        for reader in (read_image, read_index_mask, header_size):
            refused(path, reader, "cannot read .*: ")
    monkeypatch.setattr(Image, "open", _raising(MemoryError()))
    with pytest.raises(MemoryError):  # not the file's fault
        read_image(path)


def _raising(error):
    def opened(*arguments, **options):
        raise error

    return opened
