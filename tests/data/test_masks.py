"""Mask and image reading: every fault is a DataError with the file and the fix."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hrseg.data.images import read_image
from hrseg.data.masks import MaskReader, id_table, mask_size, read_index_mask
from hrseg.errors import ConfigError, DataError
from tests.conftest import save_image

RNG = np.random.default_rng(0)
IMAGE = cv2.resize(RNG.integers(0, 256, (6, 8, 3), np.uint8), (64, 48))
MASK = RNG.integers(0, 3, (48, 64), np.uint8)
READ_3 = MaskReader(id_table(3), "Repair it.")


def save_palette(path: Path, ids: np.ndarray) -> Path:
    image = Image.fromarray(ids).convert("L").convert("P")
    image = Image.frombytes("P", ids.shape[::-1], ids.tobytes())
    image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200])
    image.save(path)
    return path


def test_grey_palette_and_alpha_images_become_rgb(tmp_path):
    grey = save_image(tmp_path / "grey.png", IMAGE[..., 0])
    np.testing.assert_array_equal(read_image(grey), np.repeat(IMAGE[..., :1], 3, 2))
    alpha = save_image(tmp_path / "alpha.png", np.dstack([IMAGE, IMAGE[..., 0]]))
    np.testing.assert_array_equal(read_image(alpha), IMAGE)
    palette = save_palette(tmp_path / "palette.png", np.zeros((4, 5), np.uint8))
    assert read_image(palette)[0, 0].tolist() == [200, 10, 10]


def test_a_16_bit_image_is_scaled_with_a_warning(tmp_path):
    deep = np.array([[0, 257, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), deep)
    with pytest.warns(UserWarning, match="16-bit"):
        image = read_image(tmp_path / "a.png")
    assert image[0, :, 0].tolist() == [0, 1, 255]
    assert image.dtype == np.uint8


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_truncated_image_is_an_error_with_the_file_name(tmp_path, suffix, share):
    data = save_image(tmp_path / f"whole{suffix}", IMAGE).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=rf"cut{suffix} cannot be read: ") as error:
        read_image(path)
    assert len(str(error.value).splitlines()) <= 4


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path):
    path = save_image(tmp_path / "a.jpg", IMAGE)
    path.write_bytes(path.read_bytes() + b"maker's trailer")
    assert read_image(path).shape == IMAGE.shape


def test_16_bit_mask_with_small_ids_is_read(tmp_path):
    path = save_image(tmp_path / "a.png", MASK.astype(np.uint16))
    np.testing.assert_array_equal(READ_3(path), MASK)


@pytest.mark.parametrize("name", ["a.tif", "a.tiff", "a.TIF", "a.bmp", "a.gif"])
def test_other_formats_without_loss_keep_the_ids(tmp_path, name):
    Image.fromarray(MASK).save(tmp_path / name)
    np.testing.assert_array_equal(READ_3(tmp_path / name), MASK)
    assert mask_size(tmp_path / name) == MASK.shape


@pytest.mark.parametrize("options", [{}, {"compress": "deflate", "tiled": True, "nodata": 2}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_geotiff_masks_keep_the_ids(tmp_path, dtype, options):
    rasterio = pytest.importorskip("rasterio")
    shape = {"height": 48, "width": 64, "count": 1, "dtype": np.dtype(dtype).name}
    size = {"blockxsize": 32, "blockysize": 32} if options else {}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **shape, **options, **size) as file:
        file.write(MASK.astype(dtype), 1)
    np.testing.assert_array_equal(READ_3(tmp_path / "a.tif"), MASK)


def test_the_alpha_channel_can_be_the_mask(tmp_path):
    read = MaskReader(id_table(2, {0: 0, 255: 1}), "", alpha=True)
    pixels = np.dstack([IMAGE, np.where(MASK == 1, 255, 0)]).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(tmp_path / "a.png"), MASK == 1)
    assert read.identity != MaskReader(read.table, "").identity
    with pytest.raises(DataError, match=r"b\.png has no alpha channel \(RGB\)[\s\S]*Fix"):
        read(save_image(tmp_path / "b.png", IMAGE))


BLACK_WHITE = MaskReader(id_table(2), "", ((0, 0, 0), (255, 255, 255)))


@pytest.mark.parametrize(
    ("name", "pixels", "read", "message"),
    [
        ("a.png", MASK.astype(np.uint16) + 26000, READ_3, r"contains ids up to 26002.*\n.*0..255"),
        ("a.png", IMAGE, READ_3, r"is a coloured image[\s\S]*Repair"),
        ("a.tif", MASK.astype(np.float32) / 2, READ_3, r"contains decimal numbers[\s\S]*Fix"),
        ("a.jpg", MASK, READ_3, r"a JPEG mask has wrong ids[\s\S]*PNG"),
        ("a.png", np.full((4, 5), 4000, np.uint16), BLACK_WHITE, "has 16 bits per pixel"),
        ("a.png", np.full((1, 3, 3), 7, np.uint8), BLACK_WHITE,
         r"colour \(7, 7, 7\) in 3 pixels[\s\S]*ignore_ids"),
    ],
)  # fmt: skip
def test_a_mask_of_another_kind_is_an_error_with_the_fix(tmp_path, name, pixels, read, message):
    with pytest.raises(DataError, match=rf"{name}:? {message}"):
        read(save_image(tmp_path / name, pixels))


def test_an_unknown_id_is_an_error_with_file_id_pixels_and_fix(tmp_path):
    mask = MASK.copy()
    mask[:2, :5] = 77
    read = MaskReader(id_table(3, ignore_ids=[255]), "Repair it.")
    with pytest.raises(DataError) as error:
        read(save_image(tmp_path / "a.png", mask))
    assert str(error.value) == (
        f"{tmp_path / 'a.png'}: unknown id 77 (10 pixels).\nExpected: 0..2, 255.\nRepair it."
    )


def test_rgb_mask_becomes_positions_in_the_palette(tmp_path):
    palette = ((10, 0, 0), (0, 10, 0), (0, 0, 10))
    read = MaskReader(id_table(3), "", palette)
    path = save_image(tmp_path / "a.png", np.array(palette, np.uint8)[MASK])
    np.testing.assert_array_equal(read(path), MASK)


def test_id_map_overrides_ignore_ids():
    table = id_table(2, {0: 0, 255: 1}, ignore_ids=[255, 7])
    assert (table[0], table[255], table[7], table[1]) == (0, 1, 255, -1)


@pytest.mark.parametrize("id_map", [{0: 3}, {256: 0}])
def test_an_id_map_out_of_range_is_refused(id_map):
    with pytest.raises(ConfigError, match=r"train ids 0\.\.2 for 3 classes"):
        id_table(3, id_map)


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 4) | st.just(255)))
def test_the_table_maps_exactly_the_ids_of_the_id_map(id_map):
    table = id_table(5, id_map)
    assert {raw: int(train) for raw, train in enumerate(table) if train >= 0} == id_map


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_masks_of_any_depth_keep_the_stored_ids(tmp_path, depth):
    ids = np.array([[0, 1, 1, 0], [1, 0, 2**depth - 1, 1]], np.uint8)
    path = tmp_path / "mask.png"
    path.write_bytes(_grey_png(ids, depth))
    assert np.array_equal(read_index_mask(path), ids)


def _grey_png(ids, depth):
    """Write a grey PNG by the specification; Pillow writes 8 bits only."""
    height, width = ids.shape
    bits = np.unpackbits(ids[..., None], axis=-1)[..., 8 - depth :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
