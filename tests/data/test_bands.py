"""Images other than 8-bit RGB: formats, chosen bands, 16 bits, value range, nodata, cache."""

import cv2
import numpy as np
import pytest
from PIL import Image

import hrseg
from hrseg.config.loader import load_config
from hrseg.data.analysis.check import check_splits, find_split
from hrseg.data.analysis.statistics import mean_and_std
from hrseg.data.analysis.suggest_config import inspect_folder, write_config
from hrseg.data.bands import Header, image_header, measured_channels, read_bands
from hrseg.data.cache_writer import write_cache
from hrseg.data.images import header_size, read_image
from hrseg.data.transforms import Window, crop_image
from hrseg.errors import ConfigError, DataError
from hrseg.inference.inputs import read_pixels
from hrseg.utils.channels import Channels
from tests.conftest import picture, save_image
from tests.multiband import make_bands, scene, write_tiff

DEEP = np.random.default_rng(0).integers(0, 65536, (40, 50, 8), np.uint16)


def folder(root, **options):
    return hrseg.data.Folder(str(root), batch_size=2, crop_size=(64, 64), workers=0, **options)


@pytest.mark.parametrize("name", ["a.tif", "a.TIFF", "a.webp", "a.bmp", "a.png"])
def test_lossless_formats_are_read_as_the_stored_rgb_values(tmp_path, name):
    path = save_image(
        tmp_path / name, picture((40, 50)), **{"lossless": True} if ".w" in name else {}
    )
    assert np.array_equal(read_image(path), picture((40, 50)))
    assert header_size(path) == (40, 50) and image_header(path) == Header((40, 50), 3, "uint8")


def test_grey_palette_and_cmyk_tiffs_are_converted_to_rgb(tmp_path):
    image = Image.fromarray(picture((40, 50)))
    for mode in ("L", "P", "CMYK"):
        converted = image.convert(mode)
        converted.save(tmp_path / f"{mode}.tif")
        expected = np.asarray(converted.convert("RGB"))
        assert np.array_equal(read_image(tmp_path / f"{mode}.tif"), expected)


def test_bands_are_read_in_the_chosen_order_with_all_16_bits(tmp_path):
    path = write_tiff(tmp_path / "a.tif", DEEP)
    image, valid = read_bands(path, Channels.of((4, 3, 2, 8), "uint16"))
    assert image.dtype == np.uint16 and valid is None
    assert np.array_equal(image, DEEP[..., [3, 2, 1, 7]])
    cv2.imwrite(str(tmp_path / "a.png"), DEEP[..., [2, 1, 0]])  # OpenCV writes BGR
    image, _ = read_bands(tmp_path / "a.png", Channels.of((1, 2, 3), "uint16"))
    assert np.array_equal(image, DEEP[..., :3])


def test_a_grey_image_has_three_equal_bands(tmp_path):
    path = write_tiff(tmp_path / "a.tif", DEEP[..., :1])
    image, _ = read_bands(path, Channels.of((1, 2, 3), "uint16"))
    assert np.array_equal(image, np.repeat(DEEP[..., :1], 3, 2))


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_of_a_tiff_is_applied_as_in_prediction(tmp_path, orientation):
    path = tmp_path / "a.tif"
    Image.fromarray(picture((40, 50))).save(path, tiffinfo={274: orientation})
    upright = np.rot90(picture((40, 50)), 2 if orientation == 3 else -1)
    assert np.array_equal(read_image(path), upright) and header_size(path) == upright.shape[:2]
    assert np.array_equal(read_bands(path, Channels.of((3,)))[0], upright[..., 2:])
    assert np.array_equal(read_pixels(path)[0], upright)


def test_missing_bands_other_data_types_and_palettes_are_refused(tmp_path):
    deep = write_tiff(tmp_path / "deep.tif", DEEP[..., :3])
    with pytest.raises(DataError, match=r"deep.tif has 3 bands, but data.channels uses band 8"):
        read_bands(deep, Channels.of((1, 8), "uint16"))
    with pytest.raises(DataError, match=r"values of uint16, but the images .* have uint8"):
        read_bands(deep, Channels.of((1, 2, 3, 1)))
    photo = save_image(tmp_path / "a.jpg", picture((40, 50)))
    with pytest.raises(DataError, match=r"a.jpg has 3 bands, but data.channels uses band 4"):
        read_bands(photo, Channels.of((4,)))
    Image.fromarray(picture((40, 50))).convert("P").save(tmp_path / "p.tif")
    with pytest.raises(DataError, match=r"p.tif has a palette"):
        read_bands(tmp_path / "p.tif", Channels.of((1,)))


def test_a_truncated_tiff_is_an_error_with_its_name(tmp_path):
    path = write_tiff(tmp_path / "a.tif", DEEP)
    path.write_bytes(path.read_bytes()[:2000])
    for channels in (None, Channels.of((1, 2), "uint16")):
        with pytest.raises(DataError, match=r"a\.tif"):
            read_bands(path, channels)


def test_other_types_are_mapped_to_16_bits_and_need_a_range(tmp_path):
    values = np.array([[[-1.0], [0.0], [1.0], [2.0], [3.0], [np.nan]]], np.float32)
    path = write_tiff(tmp_path / "a.tif", values)
    with pytest.raises(DataError, match=r"values of float32.\n[\s\S]*data.value_range=\[LOW,HIGH"):
        measured_channels([path], (1,), None)
    channels = measured_channels([path], (1,), (0.0, 2.0))
    image, valid = read_bands(path, channels)
    # 0..2 becomes 0..65535, and 1 is in the middle: 32767.5 rounded to even.
    assert image[0, :5, 0].tolist() == [0, 0, 32768, 65535, 65535]
    assert valid[0].tolist() == [True] * 5 + [False]


def test_the_range_of_16_bits_is_the_1st_to_99th_percentile_of_each_channel(tmp_path):
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100, 1)
    path = write_tiff(tmp_path / "a.tif", np.concatenate([ramp, 2 * ramp], 2))
    channels = measured_channels([path, path], (1, 2), None)
    # Of 0..9999 the p-th percentile is p / 100 * 9999.
    assert channels.ranges == ((100.0, 9899.0), (200.0, 19798.0))
    assert measured_channels([path], (1, 2), (0, 500)).ranges == ((0, 500), (0, 500))


def test_8_bit_rgb_has_no_channels_and_16_bits_are_found_by_the_headers(tmp_path):
    rgb = save_image(tmp_path / "a.png", picture((40, 50)))
    deep = write_tiff(tmp_path / "b.tif", DEEP)
    assert measured_channels([rgb], None, None) is None
    assert measured_channels([rgb], (1, 2, 3), None) is None
    assert measured_channels([rgb], (3, 2, 1), None) == Channels.of((3, 2, 1))
    assert measured_channels([deep], None, None).kind == "uint16"
    assert measured_channels([deep], None, None).bands == (1, 2, 3)
    assert measured_channels([deep, rgb], None, None) is None  # read as 8 bits, with a warning


@pytest.mark.parametrize("kind", ["nodata", "alpha", "WebP", "NaN"])
def test_pixels_without_a_value_are_ignored_in_the_mask(tmp_path, kind):
    image, mask = scene(4, "float32" if kind == "NaN" else "uint8")
    image[:10] = {"nodata": 255, "NaN": np.nan}.get(kind, 0)
    path, options = tmp_path / "images/train/a.tif", {}
    if kind == "WebP":
        path = save_image(path.with_suffix(".webp"), image, lossless=True)
    elif kind == "alpha":
        image[10:, :, 3] = 255
        write_tiff(path, image, photometric="RGB", alpha="YES")
    else:
        write_tiff(path, image, **{"nodata": 255} if kind == "nodata" else {})
        options = {"channels": [1, 2, 3, 4]}
    options |= {"value_range": [0, 1]} if kind == "NaN" else {}
    save_image(tmp_path / "masks/train/a.png", mask)
    data = folder(tmp_path, class_names=["field", "house"], **options)
    read = data.dataset("train").read(0)[1]
    assert (read[:10] == 255).all() and np.array_equal(read[10:], mask[10:])


def test_a_fourth_band_that_is_a_channel_is_not_transparency(tmp_path):
    image = scene(4, "uint8")[0]
    image[:10, :, 3] = 0  # GDAL marks the fourth of four 8-bit bands as alpha
    path = write_tiff(tmp_path / "a.tif", image)
    assert read_bands(path, Channels.of((1, 2, 3, 4)))[1] is None
    assert not read_bands(path, None)[1][:10].any()


def test_the_warp_of_many_channels_is_that_of_each_group_of_three():
    image = np.concatenate([picture((60, 70), seed) for seed in range(4)], 2)
    window = Window((90, 105), 20, 60, True, (48, 64))
    groups = [crop_image(np.ascontiguousarray(image[..., i : i + 3]), window) for i in (0, 3, 6, 9)]
    assert np.array_equal(crop_image(image, window), np.concatenate(groups, 2))
    single = crop_image(image[..., :1], window)
    assert np.array_equal(single, groups[0][..., :1]) and single.shape == (48, 64, 1)
    deep = crop_image(image.astype(np.uint16) * 257, window)
    assert deep.dtype == np.uint16
    assert abs(deep / 257 - np.concatenate(groups, 2)).max() <= 1  # rounded to 8 bits


def test_colour_jitter_and_options_that_contradict_a_checkpoint_are_refused(tmp_path):
    make_bands(tmp_path, 4, "uint8")
    with pytest.raises(ConfigError, match="photometric changes the colours of 8-bit RGB"):
        folder(tmp_path, channels=[1, 2, 3, 4], photometric=0.5).check("fit")
    data = folder(tmp_path, channels=[1, 2, 3, 4])
    with pytest.raises(ConfigError, match=r"data.channels is \[1, 2, 3, 4\], but .* \[1, 2\]"):
        data.use_channels(Channels.of((1, 2)))
    with pytest.raises(ConfigError, match=r"data.value_range is \[0.0, 90.0\]"):
        folder(tmp_path, value_range=[0, 90]).use_channels(Channels.of((1, 2)))


def test_an_empty_value_range_is_refused(tmp_path):
    make_bands(tmp_path, 4, "uint8")
    with pytest.raises(ConfigError, match=r"data.value_range is \[9"):
        folder(tmp_path, value_range=[9, 9]).check("fit")
    with pytest.raises(ConfigError, match=r"data.value_range is \[9"):
        load_config("synthetic_tiny", ["data.value_range=[9,9]"])


def test_the_check_before_training_names_an_image_without_the_bands(tmp_path):
    make_bands(tmp_path, 4, "uint16")
    write_tiff(tmp_path / "images/train/train3.tif", scene(2, "uint16")[0])
    with pytest.raises(DataError, match=r"train3.tif has 2 bands"):
        folder(tmp_path, channels=[1, 4]).check("fit")


def test_the_cache_has_the_channels_and_is_refused_for_others(tmp_path):
    root, cache = make_bands(tmp_path / "data", 4, "uint16"), tmp_path / "cache"
    data = folder(root, channels=[4, 1])
    files = [*data.dataset("train").files, *data.dataset("val").files]
    assert write_cache(cache, root, files, data.mask_reader(), channels=data.channels) == 6
    cached = folder(root, channels=[4, 1], cache=cache)
    cached.setup("fit")
    image, mask = cached.train_dataset.read(0)
    expected, expected_mask = data.dataset("train").read(0)
    assert image.dtype == np.uint16 and np.array_equal(image, expected)
    assert np.array_equal(mask, expected_mask)
    with pytest.raises(ConfigError, match="does not fit this config"):
        folder(root, channels=[1, 4], cache=cache).setup("fit")


def test_init_writes_the_bands_of_images_with_more_than_three(tmp_path):
    make_bands(tmp_path, 4, "uint16")
    config = tmp_path / "bands.yaml"
    config.write_text(write_config(inspect_folder(tmp_path)))
    assert load_config(config).data.channels == (1, 2, 3, 4)
    three = make_bands(tmp_path / "three", 3, "uint16")
    assert "channels" not in write_config(inspect_folder(three))


def test_the_data_check_counts_the_channels(tmp_path):
    image = np.zeros((64, 80, 4), np.uint8)
    image[..., 1], image[:32, :, 3] = 51, 255
    write_tiff(tmp_path / "images/train/a.tif", image)
    save_image(tmp_path / "masks/train/a.png", scene(4, "uint8")[1])
    data = folder(tmp_path, class_names=["field", "house"], channels=[1, 2, 3, 4])
    split = find_split(data, "train")
    check_splits([split], data.mask_reader(), 0, channels=data.channels)
    mean, std = mean_and_std(split)
    np.testing.assert_allclose(mean, [0, 0.2, 0, 0.5])
    np.testing.assert_allclose(std, [0, 0, 0, 0.5], atol=1e-9)
