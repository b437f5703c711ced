"""Conversion of images of any kind to RGB uint8, with a note on each conversion."""

import cv2
import numpy as np
import pytest
from PIL import Image

from hrseg.errors import DataError
from hrseg.inference.inputs import read_pixels
from tests.conftest import picture, save_image

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 10


def test_rgb_files_pil_images_and_arrays_are_unchanged(tmp_path):
    path = save_image(tmp_path / "a.png", RGB)
    for source in (RGB, Image.fromarray(RGB), path, str(path)):
        pixels, notes = read_pixels(source)
        assert pixels.tolist() == RGB.tolist()
        assert notes == []


def test_exif_orientation_is_applied_with_a_note(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers rotate it by 90 degrees clockwise
    pixels, notes = read_pixels(save_image(tmp_path / "a.png", RGB, exif=exif))
    assert pixels.tolist() == np.rot90(RGB, -1).tolist()
    assert notes == ["rotated upright by EXIF orientation"]


def test_16_bits_are_scaled_to_8_with_a_note(tmp_path):
    grey = np.array([[0, 256, 257], [32768, 65278, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "grey.png"), grey)
    pixels, notes = read_pixels(tmp_path / "grey.png")
    assert pixels[..., 0].tolist() == [[0, 0, 1], [127, 254, 255]]
    assert (pixels == pixels[..., :1]).all()
    assert notes == ["greyscale converted to RGB", "16 bits per channel scaled to 8"]
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([grey] * 3))
    pixels, notes = read_pixels(tmp_path / "rgb.png")
    assert notes == ["16 bits per channel scaled to 8"]
    assert np.abs(pixels[..., 0].astype(int) - grey // 257).max() <= 1


@pytest.mark.parametrize(
    ("mode", "note"),
    [
        ("L", "greyscale converted to RGB"),
        ("RGBA", "transparency ignored"),
        ("CMYK", "CMYK converted to RGB"),
    ],
)
def test_other_modes_are_converted_to_rgb_with_a_note(mode, note):
    pixels, notes = read_pixels(Image.fromarray(RGB).convert(mode))
    assert pixels.shape == RGB.shape
    assert notes == [note]


def test_only_the_first_of_several_pages_is_read(tmp_path):
    more = [Image.fromarray(RGB + 1)]
    path = save_image(tmp_path / "a.tif", RGB, save_all=True, append_images=more)
    pixels, notes = read_pixels(path)
    assert pixels.tolist() == RGB.tolist()
    assert notes == ["2 pages, only the first is used"]


def test_errors_contain_the_path_of_unreadable_and_missing_images(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(DataError, match=r"text.png cannot be read as an image"):
        read_pixels(tmp_path / "text.png")
    with pytest.raises(DataError, match=r"none.png: no such file"):
        read_pixels(tmp_path / "none.png")
    path = save_image(tmp_path / "cut.png", picture((64, 64)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut.png cannot be read as an image"):
        read_pixels(path)
    path = save_image(tmp_path / "f.tif", np.zeros((4, 4), np.float32))
    with pytest.raises(DataError, match=r"f.tif: The image has .* mode F.\nExpected: 8 or 16 bits"):
        read_pixels(path)


def test_arrays_of_another_shape_or_type_are_refused():
    for array in (RGB[..., 0], RGB.astype(np.float32), np.zeros((2, 3, 4), np.uint8)):
        with pytest.raises(DataError, match=r"Expected: one RGB image, uint8 \(H, W, 3\)"):
            read_pixels(array)
