"""Choice and pictures of the images in a report."""

import base64
import io

import numpy as np
from PIL import Image

from hrseg.evaluation.report import choose_images, draw_panels
from hrseg.evaluation.results import ImageRecord, open_evaluation, record
from hrseg.visualize import indexed
from tests.conftest import save_image
from tests.evaluations import PALETTE, write_evaluation


def test_the_most_telling_images_are_chosen_first(tmp_path):
    counts = {
        "a": ((0, 0, 100),),
        "b": ((0, 0, 50), (1, 1, 40), (1, 0, 10)),  # class 1: 40 of 50
        "c": ((0, 0, 50), (1, 1, 10), (1, 0, 40)),  # class 1: 10 of 50, the worst
        "d": ((0, 0, 99), (1, 0, 1)),  # lowest mIoU, (0.99 + 0) / 2, but one pixel of class 1
        "e": ((0, 0, 70), (0, 2, 30)),  # class 2: 0 of 30; carries 0 taken for 2
    }
    records = [ImageRecord(name, (10, 10), rows) for name, rows in counts.items()]
    evaluation = open_evaluation(write_evaluation(tmp_path, records, ["x", "y", "z"]))
    # mIoU: a 1, b 0.817, c 0.378, d 0.495, e 0.35. Worst class first: z (e), y (c), then x: its
    # images cover 100, 60, 90, 100, 100 pixels, so a, d and e are left, of which e is worst.
    assert choose_images(evaluation, 1) == [4]
    assert choose_images(evaluation, 2) == [4, 2]
    # Confusion 1 taken for 0 is carried most by c, so the next is the second worst of y, b.
    assert choose_images(evaluation, 3) == [4, 2, 1]
    # Then of x, d; then its best, a.
    assert choose_images(evaluation, 60) == [4, 2, 1, 3, 0]
    assert choose_images(evaluation, 0) == []


def lone_image(home, truth, pred):
    """An evaluation of one grey image with data set and mask."""
    save_image(home / "data/val/a.png", np.full((*truth.shape, 3), 99, np.uint8))
    save_image(home / "data/valannot/a.png", truth)
    (home / "run/masks").mkdir(parents=True)
    indexed(pred, PALETTE[:2]).save(home / "run/masks/a.png")
    records = [record("a", truth, truth)]
    return open_evaluation(write_evaluation(home / "run", records, ["x", "y"], home / "data"))


def test_wide_images_are_shown_480_pixels_wide(tmp_path):
    ids = np.zeros((300, 960), np.uint8)
    panels, faults = draw_panels(lone_image(tmp_path, ids, ids), [0])
    assert faults == []
    assert sorted(panels[0]) == ["errors", "image", "pred", "truth"]
    for uri in panels[0].values():
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
            assert picture.size == (480, 150)


def test_a_mask_of_another_size_is_named_and_left_out(tmp_path):
    ids = np.zeros((20, 30), np.uint8)
    panels, faults = draw_panels(lone_image(tmp_path, ids, ids[:10]), [0])
    assert panels == {}
    assert "a.png is 30x10, the truth 30x20" in str(faults[0])
