"""The command `hrseg predict`: its outputs and error messages."""

import hashlib
import json
import os
import shutil
import time

import cv2
import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import hrseg
from hrseg.cli import main
from tests.conftest import picture, save_image
from tests.golden_weights import official_weights
from tests.untrained import NAMES, PALETTE, save_untrained


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a model of three classes."""
    folder = tmp_path_factory.mktemp("run")
    save_untrained(folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture
def photos(tmp_path):
    for index, size in enumerate([(48, 64), (40, 72), (64, 64), (33, 97)]):
        path = tmp_path / "photos" / f"{'deep/' * (index > 2)}{index}.png"
        save_image(path, picture(size, index))
    return tmp_path / "photos"


def predict(run, *arguments):
    return main(["predict", "--checkpoint", str(run), "--device", "cpu", *map(str, arguments)])


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_mask_equals_the_prediction_at_the_size_of_the_image(run, photos, tmp_path):
    assert predict(run, photos, "--out", tmp_path / "out") == 0
    predictor = hrseg.load(run)
    for name in ("0", "1", "2", "deep/3"):
        with Image.open(tmp_path / "out" / "masks" / f"{name}.png") as mask:
            assert mask.mode == "P"
            assert mask.getpalette()[:9] == [value for color in PALETTE for value in color]
            assert np.array_equal(np.array(mask), predictor.predict(photos / f"{name}.png").mask)
        with Image.open(tmp_path / "out" / "overlays" / f"{name}.jpg") as drawn:
            assert drawn.size == mask.size
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "legend.png", "masks", "overlays", "predict.json"
    ]  # fmt: skip


def test_probabilities_and_polygons_are_written_on_request(run, photos, tmp_path):
    options = ["--probabilities", "--polygons", "--no-overlays"]
    assert (
        predict(run, "--out", tmp_path / "out", photos / "0.png", *options, photos / "1.png") == 0
    )
    mask = np.array(Image.open(tmp_path / "out" / "masks" / "0.png"))
    with np.load(tmp_path / "out" / "probabilities" / "0.npz") as stored:
        shares = stored["probabilities"]
        assert stored["class_names"].tolist() == NAMES
    assert (shares.shape, shares.dtype) == ((3, 48, 64), np.float16)
    assert abs(shares.astype(np.float32).sum(0) - 1).max() < 2e-3
    assert (shares.argmax(0) == mask).mean() > 0.99  # ties of float16 apart
    polygons = json.loads((tmp_path / "out" / "polygons" / "0.geojson").read_text())
    for index, name in enumerate(NAMES):
        pixels = [
            feature["properties"]["pixels"]
            for feature in polygons["features"]
            if feature["properties"]["class"] == name
        ]
        assert sum(pixels) == (mask == index).sum()
    assert not (tmp_path / "out" / "overlays").exists()


def test_a_coco_file_describes_all_images_also_after_a_resume(run, photos, tmp_path):
    out = tmp_path / "out"
    assert predict(run, photos, "--polygons", "coco", "--out", out) == 0
    whole = (out / "polygons" / "coco.json").read_bytes()
    content = json.loads(whole)
    names = [image["file_name"] for image in content["images"]]
    assert names == ["0.png", "1.png", "2.png", "deep/3.png"]
    for image in content["images"]:
        regions = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert sum(region["area"] for region in regions) == image["width"] * image["height"]
    (out / "masks" / "1.png").unlink()
    (out / "polygons" / "coco.json").unlink()
    assert predict(run, photos, "--polygons", "coco", "--out", out, "--resume") == 0
    assert (out / "polygons" / "coco.json").read_bytes() == whole


def test_a_labelme_file_leads_to_its_image(run, photos, tmp_path):
    assert predict(run, photos, "--polygons", "labelme", "--out", tmp_path / "out") == 0
    for name in ("0", "deep/3"):
        path = tmp_path / "out" / "polygons" / f"{name}.json"
        content = json.loads(path.read_text())
        image = path.parent / content["imagePath"]
        assert image.samefile(photos / f"{name}.png")
        assert {shape["label"] for shape in content["shapes"]} <= set(NAMES)


@pytest.mark.parametrize("form", ["coco", "labelme"])
def test_data_import_reads_written_polygons_back(run, photos, tmp_path, form):
    out = tmp_path / "out"
    assert predict(run, photos, "--polygons", form, "--out", out) == 0
    for path in (out / "polygons").rglob("*.json"):
        shutil.copy(path, photos)
    assert main(["data", "import", str(photos), str(tmp_path / "back")]) == 0
    names = (tmp_path / "back" / "classes.txt").read_text().split()
    masks = sorted((tmp_path / "back" / "masks").glob("*.png"))
    assert [path.name for path in masks] == ["0.png", "1.png", "2.png", "3.png"]
    for path, original in zip(masks, ("0", "1", "2", "deep/3"), strict=True):
        predicted = np.array(Image.open(out / "masks" / f"{original}.png"))
        table = np.array([names.index(name) if name in names else 255 for name in NAMES])
        assert np.array_equal(np.array(Image.open(path)), table[predicted])


def test_an_input_may_follow_polygons_without_a_format(run, photos, tmp_path, capsys):
    assert predict(run, "--polygons", photos / "0.png", "--out", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out" / "polygons").iterdir()] == ["0.geojson"]
    assert predict(run, photos, "--polygons=yolo", "--out", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert "--polygons 'yolo' is unknown" in printed and "labelme" in printed


def test_resume_continues_a_folder_of_geojson_by_an_earlier_release(run, photos, tmp_path):
    arguments = [photos, "--polygons", "--out", tmp_path / "out"]
    assert predict(run, *arguments) == 0
    manifest = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert manifest["wanted"]["polygons"] is True
    assert predict(run, *arguments, "--resume") == 0


def test_a_video_gives_a_video_and_masks_on_request(run, tmp_path):
    writer = cv2.VideoWriter(
        str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48)
    )
    for level in (0, 90, 180):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    out = tmp_path / "out"
    assert predict(run, tmp_path / "*.mp4", "--out", out, "--frames") == 0
    assert cv2.VideoCapture(str(out / "overlays" / "clip.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    masks = sorted((out / "masks" / "clip").iterdir())
    assert [path.name for path in masks] == ["000001.png", "000002.png", "000003.png"]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_georeferenced_image_gives_a_georeferenced_mask(run, photos, tmp_path, capsys):
    georeference = {
        "crs": "EPSG:32632",
        "transform": rasterio.transform.from_origin(5e5, 5e6, 2, 2),
    }
    profile = {"driver": "GTiff", "height": 70, "width": 90, "count": 3, "dtype": "uint8"}
    with rasterio.open(photos / "field.tif", "w", **profile, **georeference) as file:
        file.write(np.random.default_rng(0).integers(0, 256, (3, 70, 90), np.uint8))
    out, options = tmp_path / "out", ["--polygons", "inference.scales=[0.5,1.0]"]
    assert predict(run, photos, "--out", out, *options) == 0
    printed = capsys.readouterr().out
    assert "note: predicted in tiles at scale 1, without the protocol's scales: " in printed
    assert "note: no polygons of videos and tiles: " in printed
    assert "predicting 4 images, 1 image in tiles" in printed
    with rasterio.open(out / "masks" / "field.tif") as mask:
        assert {"crs": mask.crs, "transform": mask.transform} == georeference
    assert (out / "overlays" / "field.jpg").is_file()
    assert not (out / "polygons" / "field.geojson").exists()


def test_unreadable_inputs_are_listed_at_the_end(run, photos, tmp_path, capsys):
    (photos / "0.png").write_bytes((photos / "0.png").read_bytes()[:200])
    (photos / "clip.mp4").write_text("no video")
    assert predict(run, photos, "--out", tmp_path / "out") == 3
    printed = capsys.readouterr().out
    assert f"fault: {photos / '0.png'} cannot be read as an image" in printed
    assert f"fault: {photos / 'clip.mp4'} cannot be read as a video" in printed
    assert "3 images in" in printed and "2 failed" in printed
    assert sorted(files(tmp_path / "out" / "masks")) == ["1.png", "2.png", "deep/3.png"]
    manifest = json.loads((tmp_path / "out" / "predict.json").read_text())
    assert sorted(manifest["faults"]) == [str(photos / "0.png"), str(photos / "clip.mp4")]


def test_resume_writes_only_missing_files(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [photos, "--out", out, "--polygons"]
    assert predict(run, *arguments) == 0
    whole = files(out)
    for name in ("masks/1.png", "overlays/deep/3.jpg", "polygons/2.geojson"):
        (out / name).unlink()
    (out / "masks" / ".partial-1.png").write_bytes(b"half")
    time_of_mask = (out / "masks" / "0.png").stat().st_mtime_ns
    capsys.readouterr()
    assert predict(run, *arguments, "--resume") == 0
    assert "1 of 4 inputs are already finished" in capsys.readouterr().out
    assert files(out) == whole
    assert (out / "masks" / "0.png").stat().st_mtime_ns == time_of_mask


def test_resume_predicts_changed_inputs_again(run, photos, tmp_path, capsys):
    arguments = [photos, "--out", tmp_path / "out"]
    assert predict(run, *arguments) == 0
    Image.new("RGB", (50, 40)).save(photos / "0.png")
    later = time.time() + 5
    os.utime(photos / "0.png", (later, later))
    assert predict(run, *arguments, "--resume") == 0
    assert "3 of 4 inputs are already finished" in capsys.readouterr().out
    assert Image.open(tmp_path / "out" / "masks" / "0.png").size == (50, 40)
    assert predict(run, *arguments, "--resume", "inference.flip=true") == 2
    assert "was made with protocol" in capsys.readouterr().err
    assert predict(run, *arguments, "--resume", "--polygons") == 2


def test_the_protocol_can_be_changed(run, photos, tmp_path, capsys):
    pairs = ["inference.protocol=mmseg", "inference.scales=[0.5,1.0]"]
    assert predict(run, photos / "0.png", "--out", tmp_path / "out", *pairs) == 0
    assert "mmseg: scales 0.5, 1, flip" in capsys.readouterr().out
    expected = hrseg.load(run).with_protocol("mmseg", scales=(0.5, 1.0)).predict(photos / "0.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "out" / "masks" / "0.png")), expected.mask)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.png"], "none.png matches no file"),
        (["photos", "inference.scale=[1.0]"], "command line: inference.scale: unknown key"),
        (["photos", "inference.scales=[0]"], "command line: inference.scales"),
        (["photos", "inference.scale_report=true"], "scale_report does not affect a prediction"),
        (["photos", "data.batch_size=2"], "data.batch_size does not affect a prediction"),
        (["photos", "--checkpoint", "none.ckpt"], "none.ckpt does not exist"),
        (["photos", "--device", "gpu"], "device 'gpu'"),
        (["photos", "--tile", "500"], "Tiles of 500 with an overlap of 96 pixels are invalid"),
        (["photos", "--tiles", "3"], "has no option --tiles"),
        (["photos", "--config", "cityscapes_w48"], "has its own metadata"),
    ],
)
def test_an_error_is_reported_before_the_first_output(
    run, photos, tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    start = ["predict", *([] if "--checkpoint" in arguments else ["--checkpoint", str(run)])]
    assert main([*start, "--out", "out", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) <= 4
    assert not (tmp_path / "out").exists()


def test_published_weights_predict_with_the_config_that_describes_them(photos, tmp_path, capsys):
    torch.save(official_weights("w18_small_v1"), tmp_path / "hrnet_w18_small_v1_cs.pth")
    weights = ["--checkpoint", str(tmp_path / "hrnet_w18_small_v1_cs.pth"), "--device", "cpu"]
    command = ["predict", str(photos / "0.png"), "--out", str(tmp_path / "out"), *weights]
    assert main(command) == 2
    assert "hrseg predict --config NAME" in capsys.readouterr().err
    assert main([*command, "--config", "cityscapes_w18_small_v1", "inference.flip=true"]) == 0
    assert "official_cityscapes: scales 1, flip" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "masks" / "0.png") as mask:
        assert mask.size == (64, 48)
        assert mask.getpalette()[:3] == [128, 64, 128]  # Cityscapes' road
    assert main([*command, "--config", "cityscapes_w48"]) == 2
    assert main(["predict", str(photos), "--config", "cityscapes_w48"]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err


def sums(folder):
    return {name: hashlib.sha256(data).hexdigest() for name, data in files(folder).items()}


@pytest.fixture
def dataset(tmp_path, photos):
    """A data set in the layout of hrseg: images/, and ground-truth masks in masks/."""
    root = tmp_path / "dataset"
    for image in sorted(photos.glob("*.png")):
        save_image(root / "images" / image.name, picture((48, 64), 5))
        save_image(root / "masks" / image.name, np.zeros((48, 64), np.uint8))
    return root


@pytest.mark.parametrize(
    "manifest",
    [None, "{}", "[", '{"name": "of another program"}',
     '{"sha256": "0", "wanted": 3}', '{"sha256": "0", "notes": [1]}'],
)  # fmt: skip
def test_ground_truth_masks_are_never_overwritten(
    run, photos, dataset, capsys, monkeypatch, manifest
):
    if manifest is not None:
        (dataset / "predict.json").write_text(manifest)
    before = sums(dataset)
    monkeypatch.chdir(dataset)
    for resume in ((), ("--resume",)):
        assert predict(run, photos, "--out", dataset, *resume) == 2
        message = capsys.readouterr().err
        assert "contains masks" in message and "Fix: --out" in message
        assert len(message.splitlines()) <= 4
    assert sums(dataset) == before


@pytest.mark.parametrize("inputs", [["."], ["images"], ["images/0.png", "images/1.png"], ["*/*"]])
def test_inputs_in_the_output_folder_are_refused(run, dataset, capsys, monkeypatch, inputs):
    before = sums(dataset)
    monkeypatch.chdir(dataset)
    assert predict(run, *inputs, "--out", ".") == 2
    message = capsys.readouterr().err
    assert f"{inputs[0]} is in ., the folder of the outputs" in message
    assert sums(dataset) == before


def test_predictions_of_two_checkpoints_or_protocols_are_not_mixed(run, photos, tmp_path, capsys):
    arguments = [photos / "0.png", "--out", tmp_path / "out"]
    assert predict(run, *arguments) == 0
    before = sums(tmp_path / "out")
    assert predict(run, *arguments, "inference.flip=true") == 2
    message = capsys.readouterr().err
    assert "was made with protocol" in message and "Fix: --out OTHER_FOLDER" in message
    save_untrained(tmp_path / "other" / "checkpoints" / "best.ckpt", seed=1)
    assert predict(tmp_path / "other", *arguments) == 2
    assert "was made with checkpoint" in capsys.readouterr().err
    assert sums(tmp_path / "out") == before
    assert predict(run, *arguments, "--polygons") == 0


def test_a_url_is_refused_with_a_fix(run, capsys):
    assert predict(run, "https://example.com/a.png") == 2
    message = capsys.readouterr().err
    assert "is a URL" in message and "Fix: download it" in message
