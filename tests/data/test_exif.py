"""EXIF orientations: one rule for reading, checks, evaluation and the cache."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data.cache import Cache
from hrseg.data.cache_writer import write_cache
from hrseg.data.dataset import SegmentationDataset, check_files
from hrseg.data.images import header_size, read_image
from hrseg.data.masks import MaskReader, id_table
from hrseg.errors import DataError
from tests.conftest import save_image

READ = MaskReader(id_table(3), "Repair it.")
STORED = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
# The picture in a viewer, by hand from the table of the EXIF standard.
UPRIGHT = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: np.rot90,
}


def tagged(path, orientation, image=STORED):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save_image(path, image, exif=exif)


@pytest.mark.parametrize("mask_is", ["stored", "turned"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_image_and_mask_agree_in_training_evaluation_and_cache(tmp_path, orientation, mask_is):
    """The image stays as stored if the mask fits the stored size only; else it is upright."""
    path = tagged(tmp_path / "i/a.png", orientation)
    upright = UPRIGHT[orientation](STORED)
    due = upright if mask_is == "turned" or orientation < 5 else STORED
    mask = (due[..., 0] % 3).astype(np.uint8)
    pair = path, save_image(tmp_path / "m/a.png", mask)
    assert header_size(path, mask.shape) == mask.shape
    np.testing.assert_array_equal(read_image(path), upright)

    evaluated = SegmentationDataset([pair], READ)
    trained = SegmentationDataset([pair], READ, lambda image, mask, seeds, wanted: (image, mask))
    cached = SegmentationDataset([pair], READ)
    write_cache(tmp_path / "cache", tmp_path, [pair], READ)
    cached.cache = Cache(tmp_path / "cache", tmp_path, READ)
    cached.cache.check([pair])
    for dataset in (evaluated, trained, cached):
        item = dataset[0]
        np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), due)
        np.testing.assert_array_equal(item["mask"].numpy(), mask)


def test_jpegs_and_16_bit_images_are_turned_too(tmp_path):
    photo = tagged(tmp_path / "a.jpg", 6)
    exif = Image.open(photo).getexif()
    plain = save_image(tmp_path / "b.jpg", STORED)
    np.testing.assert_array_equal(read_image(photo), np.rot90(read_image(plain), -1))
    grey = Image.fromarray(STORED[..., 0].astype(np.uint16) * 257)
    grey.save(tmp_path / "c.png", exif=exif)
    with pytest.warns(UserWarning, match="16-bit"):
        np.testing.assert_array_equal(
            read_image(tmp_path / "c.png")[..., 0], np.rot90(STORED[..., 0], -1)
        )


@pytest.mark.parametrize(
    ("orientation", "mask", "words"),
    [(3, STORED, "1 images turned upright"), (6, STORED, "1 images used as stored"),
     (6, np.rot90(STORED), "1 images turned upright"), (1, STORED, "")],
)  # fmt: skip
def test_the_check_before_training_warns_once_of_orientations(
    tmp_path, orientation, mask, words, recwarn
):
    ids = (mask[..., 0] % 3).astype(np.uint8)
    pair = tagged(tmp_path / "i.png", orientation), save_image(tmp_path / "m.png", ids)
    check_files(SegmentationDataset([pair], READ))
    notes = [str(warning.message) for warning in recwarn if "EXIF" in str(warning.message)]
    assert len(notes) == bool(words) and all(words in note for note in notes)


def test_a_mask_of_another_size_is_an_error_that_names_the_orientation(tmp_path):
    pair = tagged(tmp_path / "i.jpg", 6), save_image(tmp_path / "m.png", np.eye(30, dtype=np.uint8))
    message = r"m\.png is 30x30.*32x48[\s\S]*EXIF orientation 6[\s\S]*Fix: "
    with pytest.raises(DataError, match=message):
        check_files(SegmentationDataset([pair], READ))


@pytest.mark.parametrize("value", [0, 9, 300])
def test_invalid_orientations_leave_the_image_as_stored(tmp_path, value):
    np.testing.assert_array_equal(read_image(tagged(tmp_path / "a.png", value)), STORED)
