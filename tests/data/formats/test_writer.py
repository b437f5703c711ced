"""Output of `hrseg data import`: files, recognition, and a training on an imported folder."""

import json
import os

import numpy as np

from hrseg.cli import main
from hrseg.commands.data import FORMATS as CHOICES
from hrseg.data.formats import FORMATS, recognise
from hrseg.data.formats import writer as writer_module
from hrseg.data.formats.annotations import Shape
from hrseg.data.formats.raster import draw, fill
from tests.data.formats.scenes import imported, mask, objects, refused, save_json, save_photo
from tests.data.formats.test_coco import coco, polygons
from tests.data.formats.test_yolo import save_pair


def folder(root, count=4, splits=("train", "val")):
    """Write a YOLO folder of large squares."""
    for split in splits:
        for index in range(count):
            save_pair(root, f"{split}/{index}", "0 0.1 0.1 0.6 0.1 0.6 0.9 0.1 0.9\n", index)
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [road, car]\n")
    return root


def test_the_choices_of_the_option_are_the_formats():
    assert tuple(form.NAME for form in FORMATS) == CHOICES


def test_files_of_an_import(tmp_path, capsys):
    source = folder(tmp_path / "set", 1)
    out = imported(source, tmp_path / "new" / "out")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert files == {
        "classes.txt", "import.json", "images/train/0.jpg", "images/val/0.jpg",
        "masks/train/0.png", "masks/val/0.png",
    }  # fmt: skip
    content = json.loads((out / "import.json").read_text())
    assert content["format"] == "yolo" and content["classes"] == ["road", "car"]
    assert content["images"][0] == {
        "image": "images/train/0.jpg", "mask": "masks/train/0.png",
        "source_image": "images/train/0.jpg", "annotation": "labels/train/0.txt",
    }  # fmt: skip
    printed = capsys.readouterr().out
    # 12.8 to 76.8 and 9.6 to 86.4 pixels contain 64 x 76 of 128 x 96 centres.
    assert "39.58%" in printed
    assert "unlabelled pixels are ignored (255)" in printed
    assert printed.endswith(f"hrseg init {out}\n")
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_background_becomes_the_first_class(tmp_path):
    out = imported(folder(tmp_path / "set", 1), tmp_path / "out", "--unlabelled", "background")
    assert (out / "classes.txt").read_text() == "background\nroad\ncar\n"
    assert set(np.unique(mask(out, "val/0.png"))) == {0, 1}


def test_existing_outputs_stay_unchanged(tmp_path, capsys):
    source, out = folder(tmp_path / "set", 1), tmp_path / "out"
    out.mkdir()
    imported(source, out)  # an empty folder
    names = sorted(out.rglob("*"))
    assert main(["data", "import", str(source), str(out)]) == 2
    assert "exists already. It was not changed" in capsys.readouterr().err
    assert sorted(out.rglob("*")) == names


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writer_module, "write_json", interrupt)
    assert main(["data", "import", str(folder(tmp_path / "set")), str(tmp_path / "out")]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_equal_names_in_several_folders_keep_their_folders(tmp_path):
    images = {1: "a/photo.jpg", 2: "b/photo.jpg"}
    for name in images.values():
        save_photo(tmp_path / "set" / name)
    save_json(tmp_path / "set/all.json", coco(images, polygons(objects(0), 2)))
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (mask(out, "a/photo.png") == 255).all() and (mask(out, "b/photo.png") != 255).any()


def test_images_that_differ_in_the_extension_are_refused(tmp_path, capsys):
    images = {1: "a.jpg", 2: "a.png"}
    for name in images.values():
        save_photo(tmp_path / "set" / name)
    save_json(tmp_path / "set/all.json", coco(images, []))
    assert "a.jpg, a.png would have masks of the same name" in refused(
        tmp_path / "set", tmp_path, capsys
    )


def test_unknown_folders_list_the_formats(tmp_path, capsys):
    save_photo(tmp_path / "set/a.jpg")
    message = refused(tmp_path / "set", tmp_path, capsys)
    assert all(form.TITLE in message for form in FORMATS)
    assert "does not exist" in refused(tmp_path / "gone", tmp_path, capsys)
    assert f"Fix: hrseg data import {tmp_path / 'set'} OUT" in refused(
        tmp_path / "set/a.jpg", tmp_path, capsys
    )


def test_a_chosen_format_must_fit_the_files(tmp_path, capsys):
    source = folder(tmp_path / "set")
    for form in FORMATS:
        if form.NAME != "yolo":
            message = refused(source, tmp_path, capsys, "--format", form.NAME)
            assert f"has no {form.TITLE}.\nExpected: {form.SIGNATURE}" in message


def test_pipes_do_not_block_the_recognition(tmp_path):
    for name in ("a.json", "a.xml", "data.yaml", "_classes.csv", "pairs.csv"):
        os.mkfifo(tmp_path / name)
    assert recognise(tmp_path) is None


def test_init_names_the_command_for_annotations(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = folder(tmp_path / "my set")
    assert main(["init", str(source)]) == 3
    message = capsys.readouterr().err
    assert "has annotations (yolo), but no masks" in message
    assert f"hrseg data import '{source}' 'my set-imported'" in message


def test_an_imported_folder_trains(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = imported(folder(tmp_path / "set", 2), tmp_path / "out", "--unlabelled", "background")
    assert main(["init", str(out)]) == 0
    config = (tmp_path / "out.yaml").read_text()
    assert "- background" in config and "- road" in config and "train_split: train" in config
    words = ["model.weights=null", "data.crop_size=[32,64]", "trainer.max_epochs=1"]
    words += ["trainer.check_val_every_n_epoch=1", "data.workers=0", "data.batch_size=1"]
    assert main(["fit", "--config", "out.yaml", f"runs={tmp_path / 'runs'}", *words]) == 0


def test_one_class_with_ignored_pixels_keeps_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    source = folder(tmp_path / "set")
    (source / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [road]\n")
    assert main(["init", str(imported(source, tmp_path / "out"))]) == 0
    assert "WARNING: there is one class, and the other pixels" in capsys.readouterr().out
    config = (tmp_path / "out.yaml").read_text()
    assert "ignore_ids: [255]" in config and "- road" in config


def test_a_pixel_belongs_to_a_polygon_if_its_centre_lies_inside(tmp_path):
    pixels, corner = fill((np.array([[1.4, 1.6], [4.6, 1.6], [4.6, 3.4], [1.4, 3.4]]),), 10, 10)
    full = np.zeros((10, 10), bool)
    full[corner[0] :, corner[1] :][: pixels.shape[0], : pixels.shape[1]] = pixels
    assert np.argwhere(full).tolist() == [[2, column] for column in range(1, 5)]


def test_rings_inside_others_are_holes_and_tiny_objects_are_counted(tmp_path):
    outer, hole = (
        np.array([[1, 1], [9, 1], [9, 9], [1, 9]]),
        np.array([[3, 3], [6, 3], [6, 6], [3, 6]]),
    )
    tiny = np.array([[2.6, 2.6], [2.9, 2.6], [2.9, 2.9]])
    outside = outer + 100
    shapes = [Shape("a", ((outer, hole),)), Shape("a", ((tiny,),)), Shape("a", ((outside,),))]
    ids, empty = draw(shapes, 12, 12, {"a": 0}, tmp_path)
    expected = np.full((12, 12), -1)
    expected[1:9, 1:9] = 0
    expected[3:6, 3:6] = -1
    assert (ids == expected).all() and empty == 2
