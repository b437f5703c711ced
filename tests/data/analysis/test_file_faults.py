"""A look at one image and its mask: what it counts, notes and finds at fault."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data.analysis.check import Looks
from hrseg.data.datasets.camvid import CamVid
from hrseg.data.masks import MaskReader, id_table
from tests.conftest import picture, save_image

SIZE = (24, 32)
READER = MaskReader(id_table(11, ignore_ids=[11]), "Get them again.")
MASK = (np.arange(24 * 32).reshape(SIZE) % 12).astype(np.uint8)  # 64 pixels of each id


@pytest.fixture
def files(tmp_path):
    """A good pair."""
    image = save_image(tmp_path / "a.png", picture(SIZE, (1,)))
    return image, save_image(tmp_path / "a_mask.png", MASK)


def look(image, mask, palette=CamVid.palette):
    return Looks([(image, mask)], READER, palette)[0]


def test_a_good_pair_is_counted_and_nothing_is_said(files):
    found = look(*files)
    assert (found.faults, found.notes) == ([], [])
    assert found.size == SIZE
    assert found.counts[:11].tolist() == [64] * 11
    assert (found.counts[11], found.counts[255], found.counts.sum()) == (0, 64, 24 * 32)


@pytest.mark.parametrize("seed", range(8))
def test_the_sums_of_the_channels_are_numpys(tmp_path, seed):
    image = picture((97 + seed, 131), (seed,))
    found = look(save_image(tmp_path / "a.png", image), None)
    pixels = image.reshape(-1, 3).astype(np.int64)
    assert list(found.sums) == pixels.sum(0).tolist()
    assert list(found.squares) == (pixels**2).sum(0).tolist()


def test_the_sums_are_exact_beyond_32_bits(tmp_path):
    image = np.full((1024, 2048, 3), 255, np.uint8)
    image[7, 9] = 1, 2, 254
    found = look(save_image(tmp_path / "white.png", image), None)
    others = 255**2 * (1024 * 2048 - 1)
    assert found.squares == (others + 1, others + 4, others + 254**2)


def test_without_a_mask_only_the_image_is_looked_at(files):
    found = look(files[0], None)
    assert found.counts is None
    assert (found.faults, found.notes) == ([], [])


def colored(path):
    save_image(path, np.dstack([MASK] * 3))


def unknown(path):
    save_image(path, np.where(MASK == 3, 254, MASK).astype(np.uint8))


def small(path):
    save_image(path, MASK[:20])


def truncated(path):
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (colored, ["coloured image (RGB)", "mask_format: rgb"]),
        (unknown, ["unknown id 254 (64 pixels)", "0..11", "Get them again."]),
        (small, ["32x20", "image 32x24", "export the mask again"]),
        (truncated, ["cannot read", "copy it again"]),
    ],
)
def test_a_faulty_mask_is_named_with_its_repair(files, damage, words):
    damage(files[1])
    (wrong,) = look(*files).faults
    assert wrong.file == files[1]
    assert all(word in wrong.message for word in words), wrong.message
    assert len(wrong.message.splitlines()) <= 3


def test_a_missing_image_is_a_fault_and_its_mask_is_still_counted(files):
    files[0].unlink()
    found = look(*files)
    assert [wrong.file for wrong in found.faults] == [files[0]]
    assert found.counts.sum() == 24 * 32


def test_masks_of_colours_turned_to_grey_are_recognised(files):
    """Pillow's own conversion makes the greys; ids alone, however wrong, are not taken for them."""
    colors = np.array([*CamVid.palette, (0, 0, 0)], np.uint8)[MASK]
    Image.fromarray(colors).convert("L").save(files[1])
    (wrong,) = look(*files).faults
    assert "grey values of the palette's colours" in wrong.message
    unknown(files[1])
    (wrong,) = look(*files).faults
    assert "grey values" not in wrong.message
    save_image(files[1], np.full(SIZE, 128, np.uint8))  # Sky's grey alone may be a chance
    (wrong,) = look(*files).faults
    assert "grey values" not in wrong.message


@pytest.mark.parametrize(("ids", "note"), [([11], "all ignored"), ([4, 11], "single class")])
def test_masks_that_teach_nothing_are_noted(files, ids, note):
    save_image(files[1], np.resize(np.array(ids, np.uint8), SIZE))
    found = look(*files)
    assert not found.faults
    ((said, file),) = found.notes
    assert note in said
    assert file == files[1]


def test_grey_images_are_noted_in_either_form(files):
    grey = picture(SIZE, (2,))[..., 0]
    for pixels in (grey, np.dstack([grey] * 3)):
        assert look(save_image(files[0], pixels), files[1]).notes == [("grey images", files[0])]
    # Equal sums are not equal channels.
    swapped = np.dstack([grey, grey[::-1], grey])
    assert look(save_image(files[0], swapped), files[1]).notes == []


@pytest.mark.parametrize(
    ("suffix", "turn", "noted"), [(".jpg", 6, 1), (".png", 6, 1), (".jpg", 1, 0)]
)
def test_images_that_exif_rotates_are_noted_and_kept_as_stored(files, suffix, turn, noted):
    exif = Image.Exif()
    exif[0x0112] = turn
    path = files[0].with_suffix(suffix)
    Image.fromarray(picture(SIZE, (1,))).save(path, exif=exif)
    found = look(path, files[1])
    assert len(found.notes) == noted
    assert found.size == SIZE
    assert not found.faults
