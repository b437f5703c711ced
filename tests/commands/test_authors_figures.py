"""Figures of the authors' code, reproduced by the command line: data, weights, protocol, scores."""

import json
import zipfile
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as theirs

from hrseg.cli import main
from hrseg.config.loader import load_config
from hrseg.data import DATASETS
from hrseg.training.factory import build_data, build_task
from tests.conftest import save_image
from tests.golden_weights import GOLDEN, official_weights, relative_error
from tests.trees import make_cityscapes

EVALUATION = {**np.load(GOLDEN / "evaluation.npz"), **np.load(GOLDEN / "evaluation_ade20k.npz")}


@dataclass
class Golden:
    """Location of a golden image in a data set, and the small sizes of its protocol.

    Keys of images, labels and weights begin with `inputs`, those of the results with the name.
    """

    config: str
    inputs: str
    image: str
    mask: str
    raw_ids: tuple[int, ...]
    settings: tuple[str, ...]
    files: tuple[str, ...] = ()
    align_corners: bool = False


PASCAL_CONTEXT = Golden(
    "pascal_context_59_w48",
    "pascal_context",
    "JPEGImages/1.png",
    "SegmentationClassContext/1.png",
    tuple(range(1, 60)),
    ("base_size=104", "resize=[104]", "window=[104,104]", "stride=[69,69]"),
    ("ImageSets/SegmentationContext/val.txt",),
)
STEM = "frankfurt_000000_000294"
GOLDENS = {
    "cityscapes": Golden(
        "cityscapes_w18_small_v2",
        "cityscapes",
        f"leftImg8bit/val/frankfurt/{STEM}_leftImg8bit.png",
        f"gtFine/val/frankfurt/{STEM}_gtFine_labelIds.png",
        DATASETS["cityscapes"].submission_ids,
        ("base_size=256", "window=[128,256]", "stride=[128,256]"),
    ),
    "pascal_context": PASCAL_CONTEXT,
    "lip": Golden(
        "lip_w48",
        "lip",
        "val_images/1.png",
        "val_segmentations/1.png",
        tuple(range(20)),
        ("resize=[97,97]",),
    ),
    # The figures of ADE20K were computed with the image and the classes of PASCAL-Context.
    **{
        f"ade20k/align_{align}": replace(
            PASCAL_CONTEXT,
            settings=(*PASCAL_CONTEXT.settings, "protocol=official_ade20k"),
            align_corners=align,
        )
        for align in (False, True)
    },
}


def scene(name, root):
    """Write the golden image in the layout of its data set, and the authors' checkpoint."""
    golden = GOLDENS[name]
    save_image(root / golden.image, EVALUATION[f"{golden.inputs}/image_bgr"][..., ::-1])
    raw = np.append(np.array(golden.raw_ids, np.uint8), np.zeros(256, np.uint8))
    raw[255] = 255 if name == "lip" else 0
    save_image(root / golden.mask, raw[EVALUATION[f"{golden.inputs}/label"]])
    for file in golden.files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text("1\n")
    weights = golden_weights(golden.inputs)
    torch.save({f"model.{key}": tensor for key, tensor in weights.items()}, root / "cs.pth")
    return golden


def golden_weights(name):
    bias = torch.tensor(EVALUATION[f"{name}/last_layer.3.bias"])
    weights = official_weights("w18_small_v2", len(bias))
    weights["last_layer.3.weight"] *= 6
    weights["last_layer.3.bias"] = bias
    return weights


def overrides(golden, root, mode):
    pairs = [f"inference.{value}" for value in golden.settings]
    pairs += [f"data.root={root}", "data.workers=0", "trainer.precision=32", f"runs={root}/runs"]
    pairs += ["model.backbone=hrnet_w18_small_v2", "prediction_images=0"]
    pairs += [f"model.align_corners={golden.align_corners}"]
    if mode == "single":
        return [*pairs, "inference.scales=[1.0]", "inference.flip=false"]
    scales = "null" if golden is GOLDENS["lip"] else "[0.5,0.75,1.0,1.25,1.5,1.75]"
    return [*pairs, f"inference.scales={scales}", "inference.flip=null"]


@pytest.mark.parametrize("mode", ["single", "ms_flip"])
@pytest.mark.parametrize("name", GOLDENS)
def test_validate_gives_the_authors_confusion_matrix(name, mode, tmp_path):
    golden = scene(name, tmp_path)
    pairs = overrides(golden, tmp_path, mode)
    config = ["--config", golden.config]
    assert main(["validate", *config, "--checkpoint", str(tmp_path / "cs.pth"), *pairs]) == 0
    [path] = tmp_path.glob("runs/*/validate/*/scores.json")
    scores = json.loads(path.read_text())
    matrix = np.array(scores["confusion_matrix"])
    expected = EVALUATION[f"{name}/{mode}/confusion"]
    assert matrix.sum() == expected.sum()
    assert np.abs(matrix - expected).sum() <= 4  # two ties among the pixels
    assert scores["protocol"]["name"] == f"official_{name.partition('/')[0]}"
    assert scores["images"] == 1 and scores["absent_classes"] == "zero"


@pytest.mark.parametrize("mode", ["single", "ms_flip"])
@pytest.mark.parametrize("name", GOLDENS)
def test_an_item_of_the_data_set_has_the_authors_scores(name, mode, tmp_path):
    golden = scene(name, tmp_path)
    config = load_config(golden.config, overrides(golden, tmp_path, mode))
    config.model.weights = str(tmp_path / "cs.pth")
    data = build_data(config)
    task = build_task(config, data).eval()
    task.on_test_epoch_start()
    item = data.dataset("val")[0]
    result = task.evaluator(item["image"][None], item["mask"].shape, keep_scores=True)
    golden_scores = EVALUATION[f"{name}/{mode}/scores_stride4"]
    assert relative_error(result.scores[0, :, ::4, ::4], golden_scores) < 1e-5
    same = result.pred.numpy() == EVALUATION[f"{name}/{mode}/argmax"]
    assert same.mean() > 0.9998


def test_cityscapesscripts_scores_the_submission_as_validate_scores_the_model(tmp_path):
    root = make_cityscapes(tmp_path / "data", {"val": 3}, size=(96, 192))
    torch.save(golden_weights("cityscapes"), tmp_path / "cs.pth")
    pairs = [f"data.root={root}", "data.workers=0", "trainer.precision=32", f"runs={tmp_path}"]
    pairs += ["inference.base_size=192", "inference.scales=[0.5,1.0,1.5]", "prediction_images=0"]
    pairs += ["inference.window=[64,96]", "inference.stride=[64,96]", "data.test_split=val"]
    command = ["--config", "cityscapes_w18_small_v2", "--checkpoint", str(tmp_path / "cs.pth")]
    assert main(["validate", *command, *pairs]) == 0
    assert main(["test", *command, *pairs]) == 0
    [path] = tmp_path.glob("*/validate/*/scores.json")
    [submission] = tmp_path.glob("*/test/*/submission.zip")
    with zipfile.ZipFile(submission) as archive:
        archive.extractall(tmp_path / "unzipped")
    truth = sorted(root.glob("gtFine/val/*/*_labelIds.png"))
    predicted = sorted((tmp_path / "unzipped").iterdir())
    assert len(predicted) == 3
    assert all(p.stem.endswith("_leftImg8bit") for p in predicted)
    theirs.args.evalInstLevelScore = theirs.args.JSONOutput = False
    theirs.args.quiet = True
    expected = theirs.evaluateImgLists([*map(str, predicted)], [*map(str, truth)], theirs.args)
    scores = json.loads(path.read_text())
    for row in scores["classes"]:
        assert row["iou"] == pytest.approx(expected["classScores"][row["name"]], abs=1e-9)
    assert len({row["iou"] for row in scores["classes"]}) > 5
    assert scores["miou"] == pytest.approx(expected["averageScoreClasses"], abs=1e-9)
