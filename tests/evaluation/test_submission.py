import zipfile

import numpy as np
import pytest
from PIL import Image

from hrseg.errors import VerificationError
from hrseg.evaluation.submission import check_submission, write_zip
from tests.conftest import save_image

RAW_IDS = [7, 8, 33]


def save(path, ids):
    return save_image(path, np.resize(np.array(ids, np.uint8), (6, 4)))


@pytest.fixture
def submission(tmp_path):
    """Two images of 6x4 pixels and their masks."""
    images = [save(tmp_path / "images" / f"{name}.png", [0]) for name in "ab"]
    for name in "ab":
        save(tmp_path / "masks" / f"{name}.png", RAW_IDS)
    return tmp_path / "masks", images


def test_a_complete_submission_is_zipped_without_folders(submission, tmp_path):
    check_submission(*submission, ["a", "b"], RAW_IDS)
    write_zip(submission[0], tmp_path / "s.zip")
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert archive.namelist() == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda masks: (masks / "b.png").unlink(), "not a valid submission: b.png is missing"),
        (lambda masks: save(masks / "c.png", RAW_IDS), "c.png is not a test image"),
        (lambda masks: save(masks / "a.png", [7, 9]), r"a.png has the invalid ids \[9\]"),
        (
            lambda masks: Image.new("RGB", (4, 6)).save(masks / "a.png"),
            "a.png is RGB 4x6, expected L 4x6",
        ),
    ],
)
def test_an_invalid_submission_raises_an_error(submission, spoil, message):
    spoil(submission[0])
    with pytest.raises(VerificationError, match=message):
        check_submission(*submission, ["a", "b"], RAW_IDS)
