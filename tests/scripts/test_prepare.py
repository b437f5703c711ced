"""Conversion scripts of data sets: from generated downloads to a data set that loads."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat

from hrseg.data import COCOStuff10K, PascalContext
from tests.conftest import picture, save_image
from tests.paths import ROOT
from tests.trees import blocks

SCRIPTS = ROOT / "scripts"
# Label among the 459 -> id in the masks: sky, grass, person, wood and aeroplane.
RAW = {360: 47, 187: 29, 284: 37, 458: 59, 2: 1, 0: 0}


def run(script, *arguments):
    """Run a script in this process, because torch is already imported in it."""
    loader = SourceFileLoader(script, str(SCRIPTS / script))
    module = module_from_spec(spec_from_loader(script, loader))
    loader.exec_module(module)
    out, err, argv = io.StringIO(), io.StringIO(), [script, *map(str, arguments)]
    with patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        code = module.main()
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


@pytest.fixture
def voc(tmp_path):
    """Return a VOC2010 folder with three images and lists, and labels of the images."""
    root, labels = tmp_path / "VOC2010", {}
    for index, stem in enumerate(("2008_000001", "2008_000002", "2008_000003")):
        raw = blocks((40, 60), range(6), [index]).astype(np.int64)
        labels[stem] = np.array(list(RAW))[raw]
        save_image(root / f"JPEGImages/{stem}.jpg", picture((40, 60), [index]))
    main = root / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("2008_000001\n2008_000002\n")
    (main / "val.txt").write_text("2008_000003\n")
    return root, labels


def write_mats(folder, labels):
    folder.mkdir()
    for stem, label in labels.items():
        savemat(folder / f"{stem}.mat", {"LabelMap": label.astype(np.uint16)})
    return folder


def write_detail(path, labels, compressed=True):
    """Write Detail's JSON, with regions as COCO run lengths, compressed or as lists."""
    images, regions = [], []
    for number, (stem, label) in enumerate(labels.items()):
        phase = "val" if stem.endswith("3") else "train"
        height, width = label.shape
        images.append({"file_name": f"{stem}.jpg", "image_id": number, "phase": phase,
                       "height": height, "width": width})  # fmt: skip
        for category in np.unique(label[label > 0]):
            region = np.asfortranarray(label == category, np.uint8)
            rle = coco_mask.encode(region)
            rle["counts"] = rle["counts"].decode()
            if not compressed:
                flat = region.ravel("F")
                edges = np.flatnonzero(np.diff(flat, prepend=0))
                runs = np.diff([0, *edges.tolist(), flat.size]).tolist()
                rle = {"size": [height, width], "counts": runs}
            regions.append({"image_id": number, "category_id": int(category), "segmentation": rle})
    path.write_text(json.dumps({"images": images, "annos_segmentation": regions}))
    return path


def check_masks(root, labels):
    for stem, label in labels.items():
        mask = np.asarray(Image.open(root / f"SegmentationClassContext/{stem}.png"))
        np.testing.assert_array_equal(mask, np.vectorize(RAW.get)(label))


@pytest.mark.parametrize("source", ["mat", "detail", "detail as lists"])
def test_each_source_gives_the_masks_and_the_lists(voc, tmp_path, source):
    root, labels = voc
    if source == "mat":
        arguments = ["--mat", write_mats(tmp_path / "trainval", labels)]
    else:
        path = write_detail(tmp_path / "merged.json", labels, compressed=source == "detail")
        arguments = ["--detail", path]
    done = run("prepare_pascal_context", "--voc", root, *arguments)
    assert done.returncode == 0, done.stderr
    assert "train: 2 masks, 2 of them new. split train in" in done.stdout
    check_masks(root, labels)
    data = PascalContext(str(root), workers=0, crop_size=(32, 32), batch_size=1)
    with pytest.warns(UserWarning, match="official data set"):
        data.check()
    assert len(data.files("train")) == 2 and len(data.files("val")) == 1
    classes = json.loads((root / "SegmentationClassContext/classes.json").read_text())["classes"]
    assert classes[47] == "sky" and classes[59] == "wood"


def test_labels_outside_the_59_classes_are_background_and_counted(voc, tmp_path):
    root, labels = voc
    labels["2008_000001"][:2, :5] = 7
    mats = write_mats(tmp_path / "trainval", labels)
    done = run("prepare_pascal_context", "--voc", root, "--mat", mats)
    assert "10 pixels with 1 labels outside the 59 classes are background" in done.stdout
    mask = np.asarray(Image.open(root / "SegmentationClassContext/2008_000001.png"))
    assert (mask[:2, :5] == 0).all()


def test_an_interrupted_run_can_be_continued_and_replaces_damaged_masks(voc, tmp_path):
    root, labels = voc
    arguments = ["--voc", root, "--mat", write_mats(tmp_path / "trainval", labels)]
    replaced = []

    def stop_at_the_second(source, target):
        replaced.append(target)
        if len(replaced) == 2:
            raise KeyboardInterrupt
        Path(source).rename(target)

    with patch("os.replace", stop_at_the_second):
        done = run("prepare_pascal_context", *arguments)
    assert done.returncode == 130 and "run the same command again to continue" in done.stderr
    (root / "SegmentationClassContext/2008_000002.png").write_bytes(b"half a file")
    done = run("prepare_pascal_context", *arguments)
    assert "train: 2 masks, 1 of them new" in done.stdout
    assert not list(root.rglob("*.partial"))
    check_masks(root, labels)


def test_two_sources_are_compared_and_nothing_is_written(voc, tmp_path):
    root, labels = voc
    detail = write_detail(tmp_path / "merged.json", labels)
    labels["2008_000001"][:2, :5] = np.where(labels["2008_000001"][:2, :5] == 2, 9, 2)
    # Label 7 is outside the 59 classes, so it is background like 0.
    labels["2008_000003"][labels["2008_000003"] == 0] = 7
    mats = write_mats(tmp_path / "trainval", labels)
    (root / "ImageSets/Main/val.txt").write_text("2008_000003\n2008_000004\n")
    savemat(mats / "2008_000004.mat", {"LabelMap": np.zeros((40, 60), np.uint16)})
    done = run("prepare_pascal_context", "--voc", root, "--detail", detail, "--mat", mats)
    assert done.stdout.splitlines() == [
        "train: 10 of 4800 pixels differ, in 1 of 2 images.",
        "val: 0 of 2400 pixels differ, in 0 of 1 images.",
        "  only in the lists: 1, e.g. 2008_000004",
    ]
    assert not (root / "SegmentationClassContext").exists()


INSTANCES = np.full((40, 60), 1000, np.uint16)
INVALID = [
    ("mat", Path.unlink, "1 .mat files are missing in"),
    ("mat", lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)),
     "2008_000003.mat is damaged or has no LabelMap"),
    ("mat", lambda path: savemat(path, {"LabelMap": INSTANCES}),
     "2008_000003.mat has labels from 1000 to 1000.\nExpected: labels 0..459"),
    ("detail", lambda path: path.write_text('{"images": [], "annotations": []}'),
     "'annos_segmentation' is missing"),
    ("detail", lambda path: path.write_text(path.read_text().replace("[40, 60]", "[40, 61]")),
     "has an invalid region: its size is [40, 61], the image is [40, 60]"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "spoil", "message"), INVALID)
def test_an_invalid_source_is_named_and_no_partial_files_remain(
    voc, tmp_path, kind, spoil, message
):
    root, labels = voc
    mats = write_mats(tmp_path / "mat", labels)
    detail = write_detail(tmp_path / "detail", labels)
    spoil(detail if kind == "detail" else mats / "2008_000003.mat")
    done = run("prepare_pascal_context", "--voc", root, f"--{kind}", tmp_path / kind)
    assert done.returncode == 3 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("\n") < 5
    assert not list(root.rglob("*.partial"))
    assert not (root / "ImageSets/SegmentationContext/val.txt").exists()
    done = run("prepare_pascal_context", "--voc", tmp_path, "--mat", mats)
    assert done.returncode == 3 and "unpack VOCtrainval_03-May-2010.tar" in done.stderr


@pytest.fixture
def download(tmp_path):
    root = tmp_path / "cocostuff-10k-v1.1"
    (root / "imageLists").mkdir(parents=True)
    (root / "annotations").mkdir()
    for split in ("train", "test"):
        stem = f"COCO_train2014_{split}"
        (root / f"imageLists/{split}.txt").write_text(f"{stem}\n")
        save_image(root / f"images/{stem}.jpg", picture((40, 60), [1]))
        labels = np.array([0, 1, 11, 13, 182])[blocks((40, 60), range(5), [len(split)])]
        savemat(root / f"annotations/{stem}.mat", {"S": labels.astype(np.uint8)})
    return root


def test_cocostuff_is_converted_from_its_download(download, tmp_path):
    out = tmp_path / "out"
    done = run("prepare_cocostuff10k", download, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "test: 1 masks, 1 of them new" in done.stdout
    data = COCOStuff10K(str(out), workers=0)
    [(_, path)] = data.files("val")
    present = {data.class_names[i] for i in np.unique(data.mask_reader()(path)) if i != 255}
    assert present == {"person", "fire hydrant", "stop sign", "wood"}
    assert "0 of them new" in run("prepare_cocostuff10k", download, "--out", out).stdout


def test_an_invalid_download_is_named(download, tmp_path):
    mat = download / "annotations/COCO_train2014_train.mat"
    for spoil, message in (
        (lambda: savemat(mat, {"S": np.full((40, 60), 12, np.uint8)}), "unknown categories [12]"),
        (mat.unlink, "is missing, damaged or has no entry S"),
        ((download / "imageLists/train.txt").unlink, "train.txt does not exist"),
    ):
        spoil()
        done = run("prepare_cocostuff10k", download, "--out", tmp_path / "out")
        assert done.returncode == 3 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
