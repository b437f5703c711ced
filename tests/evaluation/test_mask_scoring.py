import json

import numpy as np
import pytest

from hrseg.cli import main
from hrseg.config.loader import load_config
from hrseg.errors import DataError
from hrseg.evaluation.mask_scoring import score_folders
from tests.conftest import save_image
from tests.trees import make_cityscapes

CONFIG = load_config("camvid_w18_small")


@pytest.fixture
def folders(tmp_path):
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    save(truth / "town" / "a.png", [[0, 0, 1, 11]])
    save(pred / "town" / "a.png", [[0, 1, 1, 5]])
    return truth, pred


def save(path, rows):
    save_image(path, np.array(rows, np.uint8))


def test_scores_of_three_pixels(folders, tmp_path):
    scores = score_folders(CONFIG, *folders, tmp_path / "scores.json")
    # Sky: 1 of 2 pixels correct. Building: 1 of 1 correct, 1 false positive. Void is not scored.
    assert [row["iou"] for row in scores["classes"][:3]] == [0.5, 0.5, None]
    assert scores["miou"] == 0.5
    assert scores["pixel_accuracy"] == pytest.approx(2 / 3)
    assert (tmp_path / "scores.json").is_file()


@pytest.mark.parametrize(
    ("part", "name", "row", "message"),
    [
        (0, "b.png", [0], r"1 of 2 masks .* no prediction.*: b"),
        (1, "town/a.png", [0, 1], r"a\.png has 2x1 pixels .*, its true mask .* 4x1"),
        (
            1,
            "town/a.png",
            [0, 11, 1, 5],
            r"a\.png contains 11, which the config ignores, in 1 pixels",
        ),
    ],
)
def test_missing_and_unsuitable_predictions_raise_an_error(folders, part, name, row, message):
    save(folders[part] / name, [row])
    with pytest.raises(DataError, match=message):
        score_folders(CONFIG, *folders)


def test_missing_and_empty_folders_raise_an_error(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, message in (("missing", "missing"), ("empty", "empty contains no masks")):
        with pytest.raises(DataError, match=message):
            score_folders(CONFIG, tmp_path / name, folders[1])


def test_predictions_may_contain_train_ids_and_true_masks_may_have_a_suffix(tmp_path):
    save(tmp_path / "truth" / "a_mask.png", [[0, 255, 255]])
    save(tmp_path / "pred" / "a.png", [[0, 1, 1]])
    overrides = ["data.class_names=[a,b]", "data.id_map={0: 0, 255: 1}", "data.mask_suffix=_mask"]
    config = load_config("folder", overrides)
    folders = tmp_path / "truth", tmp_path / "pred"
    assert score_folders(config, *folders, prediction_ids="train")["miou"] == 1.0
    with pytest.raises(DataError, match="unknown id 1"):
        score_folders(config, *folders)


def test_predictions_have_the_names_of_images_with_a_prefix(tmp_path):
    save(tmp_path / "truth" / "label_1.png", [[0, 1]])
    save(tmp_path / "pred" / "image_1.png", [[0, 1]])
    names = ["data.image_prefix=image_", "data.mask_prefix=label_"]
    config = load_config("folder", ["data.class_names=[a,b]", *names])
    assert score_folders(config, tmp_path / "truth", tmp_path / "pred")["miou"] == 1.0


@pytest.mark.parametrize("name", ["{stem}_leftImg8bit", "{city}/{stem}_gtFine_labelIds"])
def test_cityscapes_predictions_may_have_the_names_of_images_or_masks(tmp_path, name):
    truth = make_cityscapes(tmp_path, {"val": 2}) / "gtFine/val"
    for path in sorted(truth.rglob("*.png")):
        path.with_name(path.name.replace("labelIds", "color")).touch()
        stem = path.name.removesuffix("_gtFine_labelIds.png")
        out = tmp_path / "pred" / f"{name.format(city=path.parent.name, stem=stem)}.png"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(path.read_bytes())
    scores = score_folders(load_config("cityscapes_w48"), truth, tmp_path / "pred")
    assert (scores["miou"], scores["images"]) == (1.0, 2)
    out.unlink()
    with pytest.raises(DataError, match=r"apart from _gtFine_labelIds, _leftImg8bit and the ext"):
        score_folders(load_config("cityscapes_w48"), truth, tmp_path / "pred")


def test_a_prediction_is_not_scored_against_two_true_masks(folders):
    save(folders[0] / "other" / "a.png", [[0]])
    (folders[1] / "town" / "a.png").rename(folders[1] / "a.png")
    with pytest.raises(DataError, match=r"2 of 2 masks .* no prediction"):
        score_folders(CONFIG, *folders)


@pytest.fixture
def own(tmp_path):
    """True masks of 0 and 255, and predictions of hrseg, which are positions in class_names."""
    save(tmp_path / "truth" / "a.png", [[0, 255, 255, 255]])
    save(tmp_path / "out" / "masks" / "a.png", [[0, 1, 1, 0]])
    manifest = {"sha256": "0", "class_names": ["a", "b"]}
    (tmp_path / "out" / "predict.json").write_text(json.dumps(manifest))
    config = load_config("folder", ["data.class_names=[a,b]", "data.id_map={0: 0, 255: 1}"])
    return config, tmp_path / "truth", tmp_path / "out" / "masks"


def test_predict_json_determines_the_ids_of_predictions(own, capsys):
    assert score_folders(*own)["miou"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    output = capsys.readouterr().out
    assert "mean without absent classes" in output
    assert "read as ids 0..1" in output
    with pytest.raises(DataError, match="unknown id 1") as error:
        score_folders(*own, prediction_ids="raw")
    assert "--prediction-ids train" in str(error.value) and "id_map" not in str(error.value)


def test_predictions_of_other_classes_are_refused(own):
    manifest = {"sha256": "0", "class_names": ["b", "a"]}
    (own[2].parent / "predict.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="the predictions have the classes b, a, the config a, b"):
        score_folders(*own)


@pytest.mark.parametrize("option", ["--truth", "--prediction"])
def test_the_error_for_a_missing_folder_contains_its_option(own, tmp_path, capsys, option):
    options = {"--truth": str(tmp_path), "--prediction": str(tmp_path), option: "nope"}
    arguments = [word for pair in options.items() for word in pair]
    assert main(["score", "--config", "camvid_w18_small", *arguments]) == 3
    assert f"{option} nope does not exist" in capsys.readouterr().err
