"""Invalid image files are refused before decoding; pipes and devices do not block.

`tests/faults/test_dirty.py` reads all of these files as training does.
"""

import os

import numpy as np
import pytest
from PIL import Image

from hrseg.data.images import LARGEST, header_size, read_image
from hrseg.data.masks import read_index_mask
from hrseg.errors import DataError
from tests.conftest import save_image
from tests.hostile.pictures import png

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
DECODERS = (read_image, read_index_mask, header_size)


def size(count):
    return lambda path: os.truncate(save_image(path, PIXELS), count)


def other(kind, tail=b""):
    def write(path):
        Image.fromarray(PIXELS).save(path, kind)
        path.write_bytes(path.read_bytes() + tail)

    return write


INVALID_IMAGES = {
    "folder": (os.mkdir, "is a folder"),
    "pipe": (os.mkfifo, "a pipe or a device"),
    "device": (lambda path: os.symlink("/dev/zero", path), "a pipe or a device"),
    "loop": (lambda path: os.symlink(path.name, path), "symbolic links"),
    "dead link": (lambda path: os.symlink("nowhere", path), "does not exist"),
    "nothing": (lambda path: None, "does not exist"),
    "1 TiB": (size(2**40), r"1,024.0 GiB exceed the limit"),
    "too large": (size(LARGEST + 1), "GiB exceed the limit"),
    "claims": (lambda path: path.write_bytes(png((14_000, 14_000))),
               "196000000 pixels. exceeds limit"),
    **{kind: (other(kind), "not an image") for kind in ("GIF", "BMP", "TIFF", "WEBP", "JPEG2000")},
    "text": (lambda path: path.write_text("<html>404</html>"), r"a\.png"),
    "GIF with a JPEG's end": (other("GIF", b"\xff\xd9"), "not an image"),
}  # fmt: skip


@pytest.mark.parametrize("kind", INVALID_IMAGES)
def test_files_that_are_not_images_are_named_with_the_fault(tmp_path, kind):
    write, words = INVALID_IMAGES[kind]
    write(tmp_path / "a.png")
    for reader in DECODERS:
        with pytest.raises(DataError, match=words) as error:
            reader(tmp_path / "a.png")
        assert "a.png" in str(error.value) and len(str(error.value).splitlines()) <= 4


@pytest.mark.parametrize("first", [True, False], ids=["still first", "all frames"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_an_animation_is_refused_because_decoders_return_different_pictures(tmp_path, mode, first):
    frames = [Image.fromarray(np.roll(PIXELS, i, 1)).convert("RGB") for i in range(3)]
    frames = [f.quantize(16) if mode == "P" else f.convert(mode) for f in frames]
    path = tmp_path / "a.png"
    frames[0].save(path, save_all=True, append_images=frames[1:], default_image=first)
    for reader in (read_image, read_index_mask):
        with pytest.raises(DataError, match="is an animation, not a single picture"):
            reader(path)


def test_names_in_messages_are_printable_and_on_one_line(tmp_path):
    path = tmp_path / "line\nbreak\x1b]0;title\x07.png"
    path.write_bytes(b"")
    for reader in DECODERS:
        with pytest.raises(DataError) as error:
            reader(path)
        lines = str(error.value).splitlines()
        assert len(lines) == 2 and r"line\nbreak\x1b]0;title\x07.png" in lines[0]


def test_the_fix_of_a_file_without_permission_is_chmod(tmp_path, monkeypatch):
    path = tmp_path / "my mask.png"
    path.touch()

    def denied(self, mode):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.open", denied)
    with pytest.raises(DataError, match="Permission denied") as error:
        read_image(path)
    assert f"chmod u+r '{path}'" in str(error.value) and "copy" not in str(error.value)
