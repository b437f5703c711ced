"""Layouts of own data: `hrseg init` reads each, and `hrseg fit` trains with its config."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrseg.cli import main
from hrseg.config.loader import load_config, to_dict
from hrseg.data import Folder
from tests.hub_server import HubServer
from tests.weight_files import imagenet_file

SIZE = (40, 48)
TINTS = np.array([[40, 60, 90], [200, 60, 40], [60, 200, 60]], np.uint8)
COLORS = np.array([(128, 64, 128), (0, 0, 142), (70, 130, 180)], np.uint8)


def drawn(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a photo (H, W, 3) of two rectangles, and their ids 0, 1, 2 (H, W)."""
    rng = np.random.default_rng(index)
    ids = np.zeros(SIZE, np.uint8)
    for value in (1, 2):
        top, left = rng.integers(0, 20, 2)
        ids[top : top + 16, left : left + 20] = value
    return TINTS[ids] + rng.integers(0, 20, (*SIZE, 3), np.uint8), ids


Encode = Callable[[np.ndarray], Image.Image]


def values(*raw: int, dtype: type = np.uint8) -> Encode:
    return lambda ids: Image.fromarray(np.array(raw, dtype)[ids])


def colored(ids: np.ndarray) -> Image.Image:
    return Image.fromarray(COLORS[ids])


def transparent(ids: np.ndarray) -> Image.Image:
    black = np.zeros((*SIZE, 3), np.uint8)
    return Image.fromarray(np.dstack([black, 255 * (ids > 0)]).astype(np.uint8))


@dataclass
class Case:
    """A layout: names of files with the placeholder {}, masks, and other files.

    Attributes:
        expected: lines of the config or of its first lines.
        ids: train ids of the masks of the first training images.
    """

    image: str
    mask: str
    expected: list[str]
    ids: set[int] = field(default_factory=lambda: {0, 1, 2})
    encode: Encode = Image.fromarray
    files: dict[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ("",)  # values of {group}


def pairs_of(names: list[str]) -> dict[str, str]:
    lines = [f"photos/{i}.jpg,gt/x{i}y.png" for i in range(8)]
    return {"pairs.csv": "\n".join([*names, *lines])}


BINARY = ["class_names:", "- background", "- foreground"]
CASES = {
    "suffix": Case("{}.jpg", "{}_mask.png", ["mask_suffix: _mask"]),
    "prefixes": Case("image_{}.jpg", "label_{}.png",
                     ["image_prefix: image_", "mask_prefix: label_", "0.jpg and label_0.png"]),
    "prefix": Case("images/{}.jpg", "masks/mask_{}.png", ["mask_prefix: mask_"]),
    "two suffixes": Case("{}_sat.jpg", "{}_mask.png", ["image_suffix: _sat", "mask_suffix: _mask"]),
    "extensions": Case("all/{}.jpg", "all/{}.png", ['mask_suffix: ".png"', "image_folder: all"]),
    "case": Case("images/IMG_{}.JPG", "masks/img_{}.png", ["IMG_0.JPG and masks/img_0.png"]),
    "splits": Case("{group}/images/{}.jpg", "{group}/labels/{}.png",
                   ['"{split}/labels"', "val_split: valid"], groups=("train", "valid")),
    "scenes": Case("{group}/images/{}.jpg", "{group}/masks/{}.png", ['"*/images"', "16 images"],
                   groups=("scene0", "scene1")),
    "list": Case("photos/{}.jpg", "gt/x{}y.png", ["pair_list: pairs.csv"],
                 files=pairs_of(["image,mask"])),
    "list with another header": Case("photos/{}.jpg", "gt/x{}y.png", ["8 images with masks"],
                                     files=pairs_of(["img path,label path"])),
    "list without a header": Case("photos/{}.jpg", "gt/x{}y.png", ["pair_list: pairs.csv"],
                                  files=pairs_of([])),
    "16 bits": Case("images/{}.jpg", "masks/{}.png", ["class_2"],
                    encode=values(0, 1, 2, dtype=np.uint16)),
    "TIFF": Case("images/{}.jpg", "masks/{}.tif", ["class_2"]),
    "TIFF of 16 bits": Case("images/{}.jpg", "masks/{}.tiff", ["class_2"],
                            encode=values(0, 1, 2, dtype=np.uint16)),
    "GIF": Case("images/{}.jpg", "masks/{}_mask.gif", ["mask_suffix: _mask"]),
    "ids from 1": Case("images/{}.jpg", "masks/{}.png", ["id_map: {1: 0, 2: 1, 3: 2}", "[0, 255]"],
                       encode=values(1, 2, 3)),
    "0 and 255": Case("images/{}.jpg", "masks/{}.png", [*BINARY, "id_map: {0: 0, 255: 1}"], {0, 1},
                      values(0, 255, 255)),
    "0, 128, 255": Case("images/{}.jpg", "masks/{}.png", ["3 classes", "class_255"],
                        encode=values(0, 128, 255)),
    "colours": Case("images/{}.jpg", "masks/{}.png",
                    ["class_0  # colour (0, 0, 142)", "class_1  # colour (70, 130, 180)",
                     "class_2  # colour (128, 64, 128)"], encode=colored),
    "Roboflow": Case("{group}/{}.jpg", "{group}/{}_mask.png",
                     ["- background  # id 0", "- cat  # id 1", "- dog", "train/_classes.csv"],
                     files={"train/_classes.csv": "Value, Class\n0, background\n1, cat\n2, dog"},
                     groups=("train", "valid")),
    "CVAT": Case("JPEGImages/{}.jpg", "SegmentationClass/{}.png",
                 ["- road  # colour (128, 64, 128)", "- sky  # colour (70,", "labelmap.txt"],
                 encode=colored, files={
                     "labelmap.txt": "# label:color_rgb:parts:actions\nroad:128,64,128::\n"
                                     "car:0,0,142::\nsky:70,130,180::\n",
                     "ImageSets/Segmentation/default.txt": "\n".join("01234567")}),
    "class_dict.csv": Case("images/{}.jpg", "masks/{}.png", ["- car  # colour (0, 0, 142)"],
                           encode=colored, files={
                               "class_dict.csv": "name,r,g,b\nroad,128,64,128\ncar,0,0,142\n"
                                                 "sky,70,130,180\n"}),
    "classes.txt": Case("images/{}.jpg", "masks/{}.png", ["- road  # id 0", "- sky  # id 2"],
                        files={"classes.txt": "road\ncar\nsky\n"}),
    "ADE20K": Case("images/{}.jpg", "annotations/{}.png",
                   ["- wall  # id 1", '- "floor, flooring"  # id 2', "ignore_ids: [0, 255]"],
                   {0, 1, 255},
                   files={"objectInfo150.txt": "Idx\tRatio\tTrain\tVal\tStuff\tName\n"
                          "1\t0.15\t11664\t1172\t1\twall\n2\t0.1\t604\t612\t1\tfloor, flooring\n"}),
    "transparency": Case("images/{}.jpg", "masks/{}.png", ["mask_format: alpha", *BINARY], {0, 1},
                         transparent),
}  # fmt: skip


def write(root: Path, case: Case) -> None:
    for group in case.groups:
        for index in range(8):
            photo, ids = drawn(index)
            pair = {case.image: Image.fromarray(photo), case.mask: case.encode(ids)}
            for name, picture in pair.items():
                path = root / name.format(index, group=group)
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    for name, text in case.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def init(root: Path, config: Path) -> tuple[str, Folder]:
    """Return the config of `hrseg init`, and its data set after the checks of `hrseg fit`."""
    assert main(["init", str(root), "--out", str(config)]) == 0
    loaded = load_config(config)
    options = {key: value for key, value in to_dict(loaded.data).items() if key != "name"}
    data = Folder(**options, seed=loaded.seed)
    data.check()
    return config.read_text(), data


def check_training(config: Path, folder: Path, image: str, hub: HubServer) -> None:
    """Fit for an epoch from ImageNet weights of a local hub, validate, and predict an image."""
    hub.repos["timm/hrnet_w18_small.ms_in1k"]["model.safetensors"] = imagenet_file("w18_small_v1")
    short = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1", "prediction_images=0"]
    assert main(["fit", "--config", str(config), *short, f"runs={folder / 'runs'}"]) == 0
    run = next((folder / "runs").glob("*/latest"))
    assert main(["validate", "--checkpoint", str(run)]) == 0
    assert main(["predict", image, "--checkpoint", str(run), "--out", str(folder / "out")]) == 0
    assert len(list((folder / "out/masks").iterdir())) == 1


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_read_as_expected(name, tmp_path):
    case = CASES[name]
    write(tmp_path / "set", case)
    text, data = init(tmp_path / "set", tmp_path / "written.yaml")
    for line in case.expected:
        assert line in text, line
    count = 8 * len(case.groups)
    assert len(data.train_dataset) + len(data.val_dataset) == count
    ids = {int(i) for k in range(3) for i in np.unique(data.train_dataset.read(k)[1])}
    assert ids == case.ids


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_layout_trains_validates_and_predicts_without_an_edit(name, tmp_path, hub):
    write(tmp_path / "set", CASES[name])
    _, data = init(tmp_path / "set", tmp_path / "written.yaml")
    check_training(tmp_path / "written.yaml", tmp_path, str(data.train_dataset.files[0][0]), hub)


def test_transparent_masks_train_validate_and_predict_without_an_edit(tmp_path, hub):
    write(tmp_path / "set", CASES["transparency"])
    _, data = init(tmp_path / "set", tmp_path / "written.yaml")
    check_training(tmp_path / "written.yaml", tmp_path, str(data.train_dataset.files[0][0]), hub)


def test_cut_out_photos_are_their_own_masks(tmp_path):
    (tmp_path / "set/photos").mkdir(parents=True)
    for index in range(8):
        photo, ids = drawn(index)
        pixels = np.dstack([photo, 255 * (ids > 0)]).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"set/photos/{index}.png")
    text, data = init(tmp_path / "set", tmp_path / "written.yaml")
    assert "mask_format: alpha" in text and "mask_folder: photos" in text
    first = data.train_dataset
    index = int(first.files[0][0].stem)
    np.testing.assert_array_equal(first.read(0)[1], drawn(index)[1] > 0)


def test_linked_folders_and_links_below_them_are_followed(tmp_path):
    write(tmp_path / "real", Case("a/{}.jpg", "b/{}.png", []))
    for name, target in (("images/part", "a"), ("masks/part", "b")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(tmp_path / "real" / target, tmp_path / "set" / name)
    text, data = init(tmp_path / "set", tmp_path / "written.yaml")
    assert "8 images with masks" in text and len(data.train_dataset) == 6


def test_files_without_a_partner_are_left_out(tmp_path):
    write(tmp_path / "set", CASES["classes.txt"])
    (tmp_path / "set/masks/3.png").unlink()
    (tmp_path / "set/images/5.jpg").unlink()
    with pytest.warns(UserWarning, match="left out"):
        text, data = init(tmp_path / "set", tmp_path / "written.yaml")
    assert "on_error: skip" in text and "1 images without a mask, e.g. 3.jpg" in text
    assert "give each a mask of zeros" in text
    assert len(data.train_dataset) + len(data.val_dataset) == 6


def test_a_list_with_a_missing_file_is_an_error_with_its_line(tmp_path, capsys):
    write(tmp_path / "set", CASES["list"])
    (tmp_path / "set/gt/x3y.png").unlink()
    assert main(["init", str(tmp_path / "set"), "--out", str(tmp_path / "written.yaml")]) == 3
    assert "pairs.csv, line 5: the mask of" in capsys.readouterr().err
