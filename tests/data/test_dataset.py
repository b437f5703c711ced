"""Dataset items, and the check of the files before training."""

from pathlib import Path

import numpy as np
import pytest

from hrseg.data.dataset import Key, SegmentationDataset, check_files
from hrseg.data.masks import MaskReader, id_table
from hrseg.errors import DataError
from tests.conftest import save_image

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), np.uint8)
MASK = RNG.integers(0, 3, (48, 64), np.uint8)
READ_3 = MaskReader(id_table(3), "Repair it.")


def make_pairs(folder: Path, count: int) -> list[tuple[Path, Path]]:
    return [
        (save_image(folder / f"i/{i}.png", IMAGE), save_image(folder / f"m/{i}.png", MASK))
        for i in range(count)
    ]


def test_item_is_uint8_channels_first_at_the_original_size(tmp_path):
    item = SegmentationDataset(make_pairs(tmp_path, 1), READ_3)[0]
    assert (item["image"].shape, item["mask"].shape, item["name"]) == ((3, 48, 64), (48, 64), "0")
    np.testing.assert_array_equal(item["image"].permute(1, 2, 0).numpy(), IMAGE)
    np.testing.assert_array_equal(item["mask"].numpy(), MASK)


def test_repeats_and_images_without_a_mask_are_all_ignored(tmp_path):
    image, mask = make_pairs(tmp_path, 1)[0]
    dataset = SegmentationDataset([(image, mask), (image, None)], READ_3)
    assert (dataset[Key(0, repeat=True)]["mask"] == 255).all()
    assert (dataset[1]["mask"] == 255).all()
    assert (dataset[Key(0)]["mask"] != 255).all()


def test_equal_stems_in_two_folders_get_unique_names():
    files = [(Path("x/1.png"), None), (Path("y/1.png"), None)]
    assert SegmentationDataset(files, READ_3).names == ["x_1", "y_1"]


def test_check_and_reading_refuse_a_mask_of_another_size(tmp_path):
    pairs = make_pairs(tmp_path, 40)
    save_image(pairs[17][1], MASK[:-1])
    dataset = SegmentationDataset(pairs, READ_3)
    message = r"m/17\.png is 64x47, its image .*i/17\.png 64x48 \(width x height\)"
    with pytest.raises(DataError, match=message):
        check_files(dataset)
    with pytest.raises(DataError, match=message):
        dataset[17]


def test_check_decodes_a_sample_with_the_first_and_last_pair(tmp_path):
    pairs = make_pairs(tmp_path, 30)
    check_files(SegmentationDataset(pairs, READ_3))
    save_image(pairs[-1][1], MASK + 9)
    with pytest.raises(DataError, match=r"29\.png: unknown id 9"):
        check_files(SegmentationDataset(pairs, READ_3))


def test_masks_of_0_and_255_without_an_id_map_are_a_warning(tmp_path):
    image, mask = make_pairs(tmp_path, 1)[0]
    save_image(mask, (MASK > 0).astype(np.uint8) * 255)
    with pytest.warns(UserWarning, match="only the class ids.*id_map"):
        check_files(SegmentationDataset([(image, mask)], MaskReader(id_table(2, None, [255]), "")))


def test_check_counts_an_unreadable_pair_once(tmp_path):
    """One of ten pairs, unreadable by header and by pixels, is within the limit of a tenth."""
    pairs = make_pairs(tmp_path, 10)
    pairs[0][0].write_bytes(b"")
    dataset = SegmentationDataset(pairs, READ_3)
    dataset.skips = True
    with pytest.warns(UserWarning, match=r"1 of 10 images cannot be read, the first: .*0\.png"):
        check_files(dataset)
    pairs[9][1].unlink()
    with pytest.raises(DataError, match="2 of 10 images") as error:
        check_files(dataset)
    assert len(str(error.value).splitlines()) <= 4
