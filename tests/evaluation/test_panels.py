"""Selection and pictures of the images in a report."""

import base64
import io

import numpy as np
from PIL import Image

from hrseg.evaluation.report import choose_images, draw_panels
from hrseg.evaluation.results import ImageRecord, make_record, open_evaluation
from hrseg.visualize import indexed
from tests.conftest import save_image
from tests.evaluations import PALETTE, write_evaluation


def test_the_most_informative_images_are_chosen_first(tmp_path):
    counts = {
        "a": ((0, 0, 100),),
        "b": ((0, 0, 50), (1, 1, 40), (1, 0, 10)),  # class 1: 40 of 50
        "c": ((0, 0, 50), (1, 1, 10), (1, 0, 40)),  # class 1: 10 of 50, the worst
        "d": ((0, 0, 99), (1, 0, 1)),  # lowest mIoU, (0.99 + 0) / 2, but one pixel of class 1
        "e": ((0, 0, 70), (0, 2, 30)),  # class 2: 0 of 30; class 0 predicted as class 2
    }
    records = [ImageRecord(name, (10, 10), rows) for name, rows in counts.items()]
    evaluation = open_evaluation(write_evaluation(tmp_path, records, ["x", "y", "z"]))
    # mIoU: a 1, b 0.817, c 0.378, d 0.495, e 0.35. The worst class is z (image e), then y (c),
    # then x. Of x the unions are 100, 60, 90, 100, 100 pixels, so a, d and e are considered; e is
    # the worst.
    assert choose_images(evaluation, 1) == [4]
    assert choose_images(evaluation, 2) == [4, 2]
    # c has the most pixels of class 1 predicted as 0. The next is b, the second worst of y.
    assert choose_images(evaluation, 3) == [4, 2, 1]
    # Then d, the second worst of x, and a, the best of x.
    assert choose_images(evaluation, 60) == [4, 2, 1, 3, 0]
    assert choose_images(evaluation, 0) == []


def test_wide_images_are_480_pixels_wide_and_masks_of_another_size_are_errors(tmp_path):
    ids = np.zeros((300, 960), np.uint8)
    (tmp_path / "run/masks").mkdir(parents=True)
    for name, pred in (("a", ids), ("b", ids[:10])):
        save_image(tmp_path / f"data/val/{name}.png", np.full((300, 960, 3), 99, np.uint8))
        save_image(tmp_path / f"data/valannot/{name}.png", ids)
        indexed(pred, PALETTE[:2]).save(tmp_path / f"run/masks/{name}.png")
    records = [make_record(name, ids, ids) for name in "ab"]
    run = write_evaluation(tmp_path / "run", records, ["x", "y"], tmp_path / "data")
    panels, errors = draw_panels(open_evaluation(run), [0, 1])
    assert list(panels) == [0]
    assert "b.png has 960x10 pixels, its true mask 960x300" in str(errors[0])
    assert sorted(panels[0]) == ["errors", "image", "pred", "truth"]
    for uri in panels[0].values():
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as picture:
            assert picture.size == (480, 150)
