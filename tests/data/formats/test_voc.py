"""Pascal VOC masks and CVAT's "Segmentation mask 1.1": colours, indices, lists of splits."""

import numpy as np
import pytest
from PIL import Image

from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    blob,
    imported,
    mask,
    painted,
    refused,
    save_photo,
)

COLORS = {"background": (0, 0, 0), "road": (128, 64, 128), "car": (0, 0, 142), "tree": (1, 2, 3)}
HEADER = "# label:color_rgb:parts:actions\n"
LABEL_MAP = HEADER + "".join(f"{n}:{r},{g},{b}::\n" for n, (r, g, b) in COLORS.items())
IDS = painted([(0, blob(1)), (1, blob(2)), (2, blob(3))])


def save_colors(path, ids, palette=False):
    """Write ids as colours: 255 is black, the class background."""
    table = np.zeros((256, 3), np.uint8)
    table[:3] = [COLORS[name] for name in NAMES]
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(table[ids])
    if palette:
        picture = Image.fromarray(ids, mode="P")
        picture.putpalette(table.tobytes())
    picture.save(path)


def source_of(tmp_path, label_map=LABEL_MAP, name="a", **lists):
    source = tmp_path / "set"
    save_photo(source / f"JPEGImages/{name}.jpg")
    save_colors(source / f"SegmentationClass/{name}.png", IDS)
    if label_map is not None:
        (source / "labelmap.txt").write_text(label_map)
    for split, text in lists.items():
        path = source / f"ImageSets/Segmentation/{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return source


@pytest.mark.parametrize("palette", [False, True])
def test_colours_are_the_classes_of_the_label_map(tmp_path, palette):
    source = source_of(tmp_path, default="a\n")
    save_colors(source / "SegmentationClass/a.png", IDS, palette)
    out = imported(source, tmp_path / "out")
    assert (out / "classes.txt").read_text().split() == list(NAMES)
    assert np.array_equal(mask(out, "a.png"), IDS)
    with Image.open(out / "masks/a.png") as picture:
        assert picture.getpalette()[:9] == [v for name in NAMES for v in COLORS[name]]


def test_black_background_is_unlabelled(tmp_path):
    out = imported(source_of(tmp_path), tmp_path / "out", "--unlabelled", "background")
    assert (out / "classes.txt").read_text().split() == ["background", *NAMES]
    assert np.array_equal(mask(out, "a.png"), np.where(IDS == 255, 0, IDS + 1))


def test_outlines_of_voc_are_ignored(tmp_path):
    source = source_of(tmp_path)
    colors = np.array(Image.open(source / "SegmentationClass/a.png"))
    colors[:5] = (224, 224, 192)
    Image.fromarray(colors).save(source / "SegmentationClass/a.png")
    out = imported(source, tmp_path / "out", "--unlabelled", "background")
    assert (mask(out, "a.png")[:5] == 255).all()
    assert (mask(out, "a.png")[5:] != 255).all()


def test_lists_are_splits(tmp_path, capsys):
    lists = {"train": "a\n", "val": '"deep/b c"\n', "trainval": "a\ndeep/b c\n", "test": "d\n"}
    source = source_of(tmp_path, **lists)
    save_photo(source / "JPEGImages/deep/b c.png", 1)
    save_colors(source / "SegmentationClass/deep/b c.png", IDS[::-1].copy())
    out = imported(source, tmp_path / "out")
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("masks/*/*")) == [
        "masks/train/a.png", "masks/val/b c.png"
    ]  # fmt: skip
    assert np.array_equal(mask(out, "val/b c.png"), IDS[::-1])
    assert "test.txt: 1 images without a mask were left out: d" in capsys.readouterr().out


def test_without_a_label_map_indices_are_the_classes_of_voc(tmp_path):
    source = source_of(tmp_path, None).rename(tmp_path / "VOC2012")
    ids = np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 22
    ids[ids == 21] = 255
    picture = Image.fromarray(ids.astype(np.uint8), mode="P")
    picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(source / "SegmentationClass/a.png")
    out = imported(tmp_path, tmp_path / "out")
    names = (out / "classes.txt").read_text().splitlines()
    assert (names[0], names[1], names[15], names[20]) == (
        "background", "aeroplane", "person", "tvmonitor"
    )  # fmt: skip
    assert np.array_equal(mask(out, "a.png"), ids)


@pytest.mark.parametrize(
    ("label_map", "message"),
    [
        (LABEL_MAP.replace("tree:1,2,3", "tree:1,2,4"), "a.png: colour (1, 2, 3) in "),
        (LABEL_MAP.replace("tree:1,2,3", "tree:1,2"), "labelmap.txt: line 5 is 'tree:1,2::'"),
        (LABEL_MAP.replace("tree:1,2,3", "tree:1,2,256"), "labelmap.txt: line 5 is"),
        (LABEL_MAP + "bus:1,2,3::\n", "line 6: 'bus' repeats the name or the colour of 'tree'"),
        (HEADER, "labelmap.txt: the file has 0 classes"),
        (None, "a.png is a coloured image (RGB)"),
    ],
)
def test_unknown_colours_and_damaged_label_maps_are_named(tmp_path, capsys, label_map, message):
    assert message in refused(source_of(tmp_path, label_map), tmp_path, capsys)


def test_a_colour_outside_of_the_label_map_is_counted(tmp_path, capsys):
    message = refused(source_of(tmp_path, LABEL_MAP.replace("1,2,3", "1,2,4")), tmp_path, capsys)
    assert f"colour (1, 2, 3) in {(IDS == 2).sum()} pixels" in message


def test_missing_images_and_wrong_sizes_are_named(tmp_path, capsys):
    source = source_of(tmp_path, train="a\n../../../etc/passwd\n")
    (source / "JPEGImages/a.jpg").unlink()
    message = refused(source, tmp_path, capsys)
    assert "train.txt: the image 'a' is neither in JPEGImages nor in images" in message
    save_photo(source / "images/a.jpg", size=(96, 127))
    assert "96x127" in refused(source, tmp_path, capsys)
    (source / "SegmentationClass/a.png").write_bytes(b"\x89PNG\r\n\x1a\nhalf")
    assert "a.png cannot be read" in refused(source, tmp_path, capsys)
