"""Large images: reading in bands, and tiled TIFF with georeference."""

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.transform import from_origin

import hrseg
from hrseg.errors import DataError
from hrseg.inference.large_images import BigImage, predict_big
from tests.hostile.pictures import OUTSIDE
from tests.untrained import PALETTE, save_untrained

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    return hrseg.load(save_untrained(tmp_path_factory.mktemp("model") / "model.ckpt"))


def pixels(height=200, width=300, bands=3):
    noise = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, bands), np.uint8)
    return cv2.resize(noise, (width, height)).reshape(height, width, bands)


def write_tiff(path, image, **options):
    height, width, bands = image.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands}
    with rasterio.open(path, "w", **profile, dtype=image.dtype, **options) as file:
        file.write(np.moveaxis(image, -1, 0))
    return path


def rows_of(path, step=64):
    image = BigImage(path)
    height = image.size[0]
    rows = [image.read_rows(top, min(top + step, height)) for top in range(0, height, step)]
    image.close()
    return np.concatenate(rows), image.notes


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_bands_of_a_file_are_those_of_the_whole_image(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), pixels()[..., ::-1])
    rows, notes = rows_of(tmp_path / name)
    assert notes == []
    whole = np.array(Image.open(tmp_path / name)).astype(int)
    assert abs(rows - whole).mean() < (1 if name == "a.jpg" else 1e-9)  # two JPEG decoders


def test_other_pixel_types_are_converted_to_rgb_with_a_note(tmp_path):
    image = pixels()
    rows, notes = rows_of(write_tiff(tmp_path / "grey.tif", image[..., :1]))
    assert notes == ["greyscale converted to RGB"]
    assert np.array_equal(rows, np.repeat(image[..., :1], 3, 2))
    deep = image.astype(np.uint16) * 257
    rows, notes = rows_of(write_tiff(tmp_path / "deep.tif", deep, photometric="RGB"))
    assert notes == ["16 bits per channel scaled to 8"] and np.array_equal(rows, image)
    rgba = pixels(bands=4)
    rows, notes = rows_of(write_tiff(tmp_path / "a.tif", rgba, photometric="RGB", alpha="YES"))
    assert notes == ["transparency ignored"] and np.array_equal(rows, rgba[..., :3])


def test_palette_images_are_converted_to_rgb(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (40, 50, 1), np.uint8)
    path = write_tiff(tmp_path / "a.tif", ids, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {i: (*color, 255) for i, color in enumerate(PALETTE)})
    assert np.array_equal(rows_of(path)[0], np.array(PALETTE, np.uint8)[ids[..., 0]])


def test_exif_orientation_is_applied(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers rotate it by 90 degrees clockwise
    for name in ("a.jpg", "a.png"):
        Image.fromarray(pixels(64, 96)).save(tmp_path / name, exif=exif)
        rows, notes = rows_of(tmp_path / name)
        assert rows.shape == (96, 64, 3)
        assert "rotated upright by EXIF orientation" in notes
    assert np.array_equal(rows, np.rot90(pixels(64, 96), -1))
    predict_big(predictor, tmp_path / "a.png", tmp_path / "mask.tif", 64, 32)
    with rasterio.open(tmp_path / "mask.tif") as mask:
        assert mask.shape == (96, 64)


def test_unsupported_bands_and_files_that_refer_to_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"a.tif has 5 bands of uint8.\nExpected: 1 to 4"):
        BigImage(write_tiff(tmp_path / "a.tif", pixels(bands=5)))
    secret = write_tiff(tmp_path / "secret.tif", pixels())
    for text in ("hello", OUTSIDE.replace("OUTSIDE/secret.png", str(secret))):
        (tmp_path / "b.tif").write_text(text)
        with pytest.raises(DataError, match=r"b.tif cannot be read as TIFF, PNG or JPEG"):
            BigImage(tmp_path / "b.tif")


def test_the_mask_is_a_tiled_palette_tiff_of_the_predicted_ids(predictor, tmp_path):
    georeference = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 0.2, 0.2)}
    path = write_tiff(tmp_path / "a.tif", pixels(200, 300), **georeference)
    target, overlay = tmp_path / "out" / "masks" / "a.tif", tmp_path / "out" / "a.jpg"
    progress = []
    predict_big(predictor, path, target, 512, 128, overlay, lambda *rows: progress.append(rows))
    with rasterio.open(target) as file:
        mask = file.read(1)
        assert file.profile["tiled"] and file.compression.value == "DEFLATE"
        assert [file.colormap(1)[i][:3] for i in range(3)] == PALETTE
        assert (file.crs, file.transform) == (georeference["crs"], georeference["transform"])
    assert (mask == predictor.predict(pixels(200, 300)).mask).mean() > 0.9995
    assert progress[-1] == (200, 200)
    assert cv2.imread(str(overlay)).shape == (200, 300, 3)
    assert sorted(p.name for p in target.parent.iterdir()) == ["a.tif"]


def test_a_damaged_file_raises_an_error_and_leaves_no_output(predictor, tmp_path):
    path = write_tiff(tmp_path / "a.tif", pixels(900, 300))
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(DataError, match=r"a.tif is damaged in rows"):
        predict_big(predictor, path, tmp_path / "out" / "mask.tif", 128, 32)
    assert list((tmp_path / "out").iterdir()) == []
