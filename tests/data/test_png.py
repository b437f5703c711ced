import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.data.images import broken_chunk, pixels_alone, read_image, read_png
from hrseg.data.masks import read_index_mask
from tests.hostile.pictures import profile

RANDOM = np.random.default_rng(0)


def saved(path, array, mode=None, **options):
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def read(path, rgb):
    return read_png(path.read_bytes(), rgb)


@pytest.mark.parametrize(("size", "level"), [((1, 1), 0), ((7, 5), 1), ((64, 33), 9)])
def test_rgb_pixels_are_those_of_opencv(tmp_path, size, level):
    pixels = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    path = saved(tmp_path / "a.png", pixels, compress_level=level)
    assert np.array_equal(read(path, True), cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
    assert np.array_equal(read_image(path), pixels)


def test_grey_values_and_palette_indices_are_those_of_pillow(tmp_path):
    ids = RANDOM.integers(0, 20, (31, 40), np.uint8)
    grey = saved(tmp_path / "grey.png", ids)
    indexed = Image.fromarray(ids, "P")
    indexed.putpalette(RANDOM.integers(0, 256, 768).tolist())
    indexed.save(tmp_path / "palette.png", bits=8)
    for path in (grey, tmp_path / "palette.png"):
        assert np.array_equal(read(path, False), np.asarray(Image.open(path)))
        assert np.array_equal(read_index_mask(path), ids)


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def test_a_file_beside_it_changes_nothing(tmp_path):
    path = saved(tmp_path / "a.png", np.full((4, 4, 3), 7, np.uint8))
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n5\n5\n")
    assert (read(path, True) == 7).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pgw", "a.png", "a.png.aux.xml"]


def test_a_chunk_with_other_bytes_than_its_checksum_says_is_found(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)).save(path)
    data = path.read_bytes()
    assert broken_chunk(data) is None
    for place in range(8, len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << place % 8
        assert broken_chunk(bytes(harmed)) is not None
    assert broken_chunk(data + b"rubbish behind the end") is None


@pytest.mark.parametrize("tail", [b"", b"\xff\xd9", b"\0\0\0"])
def test_a_file_that_is_cut_off_anywhere_has_no_end(tmp_path, tail):
    path = saved(tmp_path / "a.png", RANDOM.integers(0, 256, (9, 9, 4), np.uint8))
    data = path.read_bytes()
    for length in range(8, len(data)):
        assert "cut off" in broken_chunk(data[:length] + tail) or "damaged" in broken_chunk(
            data[:length] + tail
        )


def test_what_opencv_gets_holds_no_text_that_libpng_would_print(tmp_path, capfd):
    rng = np.random.default_rng(0)
    for channels in (1, 3, 4):
        pixels = rng.integers(0, 65536, (9, 7, channels), np.uint16)
        data = cv2.imencode(".png", pixels)[1].tobytes()
        spoilt = data[:33] + profile(b"\x1b]52;c;aGk=") + chunk(b"tEXt", b"a\0b") + data[33:]
        assert pixels_alone(spoilt) == pixels_alone(data)
        assert b"\x1b]52" not in pixels_alone(spoilt)
        (tmp_path / "a.png").write_bytes(spoilt)
        again = read_image(tmp_path / "a.png")
        (tmp_path / "b.png").write_bytes(data)
        assert np.array_equal(again, read_image(tmp_path / "b.png"))
    assert "\x1b" not in "".join(capfd.readouterr())
