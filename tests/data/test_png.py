"""PNG files: equal pixels by all decoders, and damage that decoders miss."""

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.data.images import chunk_fault, read_image, strip_metadata
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


def test_files_beside_an_image_do_not_change_it(tmp_path):
    path = save_image(tmp_path / "a.png", np.full((4, 4, 3), 7, np.uint8))
    (tmp_path / "a.png.aux.xml").write_text("<PAMDataset><Metadata/></PAMDataset>")
    (tmp_path / "a.pgw").write_text("1\n0\n0\n-1\n5\n5\n")
    assert (read_image(path) == 7).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.pgw", "a.png", "a.png.aux.xml"]


def test_any_changed_bit_and_any_truncation_is_detected(tmp_path):
    pixels = np.arange(3 * 40 * 50, dtype=np.uint8).reshape(40, 50, 3)
    data = save_image(tmp_path / "a.png", pixels).read_bytes()
    assert chunk_fault(data) is None
    assert chunk_fault(data + b"garbage after the end") is None
    for position in range(8, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        assert chunk_fault(bytes(damaged)) is not None
        for tail in (b"", b"\xff\xd9", b"\0\0\0"):
            assert chunk_fault(data[:position] + tail).startswith(
                ("it is cut off", "it is damaged")
            )


def test_libpng_prints_no_text_of_a_file_to_the_terminal(tmp_path, capfd):
    for channels in (1, 3, 4):
        pixels = RANDOM.integers(0, 256, (9, 7, channels), np.uint8)
        data = cv2.imencode(".png", np.uint16(pixels) * 257)[1].tobytes()
        modified = data[:33] + profile(b"\x1b]52;c;aGk=") + data[33:]
        assert strip_metadata(modified) == strip_metadata(data)
        (tmp_path / "a.png").write_bytes(modified)
        with pytest.warns(UserWarning, match="16-bit"):
            image = read_image(tmp_path / "a.png")
        assert np.array_equal(image, np.broadcast_to(pixels[..., 2::-1], image.shape))
    assert "\x1b" not in "".join(capfd.readouterr())
