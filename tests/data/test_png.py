"""PNG files: the same pixels as from other decoders, and damage that decoders overlook."""

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.data.images import broken_chunk, pixels_alone, read_image
from hrseg.data.masks import read_index_mask
from tests.conftest import save_image
from tests.hostile.pictures import profile

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(("size", "level"), [((1, 1), 0), ((7, 5), 1), ((64, 33), 9)])
def test_rgb_pixels_are_those_of_opencv(tmp_path, size, level):
    pixels = RANDOM.integers(0, 256, (*size, 3), np.uint8)
    path = save_image(tmp_path / "a.png", pixels, compress_level=level)
    assert np.array_equal(read_image(path), cv2.imread(str(path), cv2.IMREAD_COLOR_RGB))
    assert np.array_equal(read_image(path), pixels)


def test_grey_values_and_palette_indices_are_those_of_pillow(tmp_path):
    ids = RANDOM.integers(0, 20, (31, 40), np.uint8)
    grey, palette = save_image(tmp_path / "grey.png", ids), tmp_path / "palette.png"
    indexed = Image.fromarray(ids, "P")
    indexed.putpalette(RANDOM.integers(0, 256, 768).tolist())
    indexed.save(palette, bits=8)
    for path in (grey, palette):
        assert np.array_equal(read_index_mask(path), np.asarray(Image.open(path)))
        assert np.array_equal(read_index_mask(path), ids)


def test_a_file_beside_it_changes_nothing(tmp_path):
    path = save_image(tmp_path / "a.png", np.full((4, 4, 3), 7, np.uint8))
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n5\n5\n")
    assert (read_image(path) == 7).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pgw", "a.png", "a.png.aux.xml"]


def test_a_changed_bit_and_a_cut_anywhere_are_found(tmp_path):
    pixels = np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)
    data = save_image(tmp_path / "a.png", pixels).read_bytes()
    assert broken_chunk(data) is None
    assert broken_chunk(data + b"rubbish behind the end") is None
    for place in range(8, len(data)):
        harmed = bytearray(data)
        harmed[place] ^= 1 << place % 8
        assert broken_chunk(bytes(harmed)) is not None
        for tail in (b"", b"\xff\xd9", b"\0\0\0"):
            assert broken_chunk(data[:place] + tail).startswith(("cut off", "damaged"))


def test_what_opencv_gets_holds_no_text_that_libpng_would_print(tmp_path, capfd):
    for channels in (1, 3, 4):
        pixels = RANDOM.integers(0, 256, (9, 7, channels), np.uint8)
        data = cv2.imencode(".png", np.uint16(pixels) * 257)[1].tobytes()
        spoilt = data[:33] + profile(b"\x1b]52;c;aGk=") + data[33:]
        assert pixels_alone(spoilt) == pixels_alone(data)
        (tmp_path / "a.png").write_bytes(spoilt)
        with pytest.warns(UserWarning, match="16-bit"):
            image = read_image(tmp_path / "a.png")
        assert np.array_equal(image, np.broadcast_to(pixels[..., 2::-1], image.shape))
    assert "\x1b" not in "".join(capfd.readouterr())
