"""Label Studio JSON: brush masks, percent coordinates, image paths, and damaged files."""

from itertools import groupby

import numpy as np
import pytest

from hrseg.data.formats.brush import decode_brush
from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    blob,
    imported,
    mask,
    objects,
    painted,
    refused,
    save_json,
    save_photo,
    truth,
)

LARGE = (600, 800)
SIZES = (3, 4, 8, 16)  # bits of a run length


def encoded(values, sizes=SIZES, word=8):
    """Return the bytes of a stream with runs of equal values, and others value by value."""
    bits = f"{len(values):032b}{word - 1:05b}" + "".join(f"{size - 1:04b}" for size in sizes)

    def length(count):
        index = next(i for i, size in enumerate(sizes) if count <= 2**size)
        return f"{index:02b}{count - 1:0{sizes[index]}b}"

    pending = []
    for value, group in [*((v, len(list(g))) for v, g in groupby(values)), (None, 0)]:
        if pending and (group != 1 or len(pending) == 2 ** sizes[-1]):
            bits += f"0{length(len(pending))}" + "".join(f"{v:0{word}b}" for v in pending)
            pending = []
        if group == 1:
            pending.append(value)
        while group > 1:
            part = min(group, 2 ** sizes[-1])
            bits += f"1{length(part)}{value:0{word}b}"
            group -= part
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def rgba(pixels, color=(30, 60, 90)):
    """Return the RGBA bytes of a mask."""
    values = np.zeros((*pixels.shape, 4), np.uint8)
    values[pixels] = (*color, 255)
    return values.ravel().tolist()


def region(kind, label, size=SIZE, **value):
    labels = [label] if isinstance(label, str) else label
    sizes = {"original_height": size[0], "original_width": size[1], "image_rotation": 0}
    return {"type": kind, "value": {kind: labels, **value}, **sizes, "id": "x", "to_name": "image"}


def brush(pixels, label="car", **changes):
    value = {"format": "rle", "rle": encoded(rgba(pixels)), **changes}
    return region("brushlabels", label, pixels.shape, **value)


def polygon(points, label="car", size=SIZE):
    percent = 100 * np.asarray(points) / size[::-1]
    return region("polygonlabels", label, size, points=percent.tolist(), closed=True)


def task(*regions, image="/data/upload/1/0a1b2c3d-a.jpg", **keys):
    annotations = [{"id": 1, "was_cancelled": False, "result": list(regions)}]
    return {"id": 7, "annotations": annotations, "data": {"text": "x", "image": image}, **keys}


def source_of(tmp_path, *tasks, size=SIZE):
    save_photo(tmp_path / "set/images/a.jpg", size=size)
    save_json(tmp_path / "set/project.json", tasks)
    return tmp_path / "set"


def drawn(tmp_path, *regions, size=SIZE):
    source = source_of(tmp_path, task(*regions), size=size)
    out = imported(source, tmp_path / "out")
    return mask(out, "a.png"), (out / "classes.txt").read_text().split()


def test_a_stream_written_by_hand_is_decoded():
    # 8 values of 8 bits; run lengths of 1, 2, 3 or 4 bits. Four zeros, then 1, 2, 3 and 255.
    bits = f"{8:032b}" + "00111" + "0000" + "0001" + "0010" + "0011"
    bits += "1" + "01" + "11" + "00000000"
    bits += "0" + "10" + "011" + "00000001" + "00000010" + "00000011" + "11111111"
    bits += "0" * (-len(bits) % 8)
    stream = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_brush(stream, 1, 2).tolist() == [[False, True]]


@pytest.mark.parametrize("sizes", [SIZES, (1, 2, 5, 7)])
def test_streams_of_any_run_sizes_are_exact(sizes):
    generator = np.random.default_rng(0)
    for share in (0.0, 0.1, 0.5, 1.0):
        pixels = generator.random((23, 31)) < share
        stream = encoded(rgba(pixels, generator.integers(0, 256, 3)), sizes)
        assert np.array_equal(decode_brush(stream, 23, 31), pixels)


def test_brushes_are_exact(tmp_path):
    layers = [blob(1), blob(2), blob(3) & ~blob(1)]
    ids, names = drawn(tmp_path, *(brush(p, n) for n, p in zip(NAMES, layers, strict=True)))
    assert names == sorted(NAMES)
    order = [sorted(NAMES).index(name) for name in NAMES]
    assert np.array_equal(ids, painted(zip(order, layers, strict=True)))


def test_polygons_have_the_pixels_of_pycocotools(tmp_path):
    scene = objects(3, LARGE, (280, 190, 120, 75, 45))
    regions = [polygon(points, name, LARGE) for name, points in scene]
    ids, names = drawn(tmp_path, *regions, size=LARGE)
    equal = np.mean(ids == truth(scene, names, size=LARGE))
    print(f"equal pixels: {equal:.4%}")
    assert equal >= 0.999


def test_rectangles_turn_about_their_corner_and_ellipses_about_their_centre(tmp_path):
    box = {"x": 50, "y": 20, "width": 25, "height": 10}
    regions = [
        region("rectanglelabels", "a", LARGE, **box),
        region("rectanglelabels", "b", LARGE, **box, rotation=90),
        region("ellipselabels", "c", LARGE, x=20, y=60, radiusX=5, radiusY=10, rotation=90),
    ]
    ids, names = drawn(tmp_path, *regions, size=LARGE)
    assert names == ["a", "b", "c"]
    assert (ids[120:180, 400:600] == 0).all() and (ids == 0).sum() == 60 * 200
    # The upper left corner (400, 120) stays; the box lies to the left of it, 60 x 200.
    assert (ids[120:320, 340:400] == 1).all() and (ids == 1).sum() == 60 * 200
    y, x = np.mgrid[: LARGE[0], : LARGE[1]] + 0.5
    inside = ((x - 160) / 60) ** 2 + ((y - 360) / 40) ** 2 < 1
    assert np.mean((ids == 2) == inside) >= 0.999


@pytest.mark.parametrize(
    ("image", "stored"),
    [
        ("/data/upload/1/0a1b2c3d-a.jpg", "0a1b2c3d-a.jpg"),
        ("/data/upload/1/0a1b2c3d-a.jpg", "deep/a.jpg"),
        ("/data/local-files/?d=photos/day%201/a.jpg", "day 1/a.jpg"),
        ("s3://bucket/deep/a.jpg", "deep/a.jpg"),
        ("https://host/x/a%20b.jpg?token=1", "a b.jpg"),
        ("deep\\a.jpg", "images/deep/a.jpg"),
    ],
)
def test_images_are_found_by_the_end_of_their_path(tmp_path, image, stored):
    source = tmp_path / "set"
    save_json(source / "project.json", [task(brush(blob(1)), image=image)])
    save_photo(source / stored)
    save_photo(source / "other/b.jpg", 1)
    out = imported(source, tmp_path / "out")
    name = stored.rpartition("/")[2].replace("jpg", "png")
    assert (mask(out, name) == np.where(blob(1), 0, 255)).all()


def test_equal_names_are_told_apart_by_their_folder(tmp_path):
    source = tmp_path / "set"
    save_json(source / "p.json", [task(brush(blob(1)), image="s3://bucket/two/a.jpg")])
    for folder in ("one", "two"):
        save_photo(source / folder / "a.jpg")
    out = imported(source, tmp_path / "out")
    assert '"two/a.jpg"' in (out / "import.json").read_text()


def test_the_ground_truth_is_chosen_and_omissions_are_counted(tmp_path, capsys):
    def by(pixels, **keys):
        return {"result": [brush(pixels)] if pixels is not None else [], **keys}

    annotations = [by(blob(1), was_cancelled=True), by(blob(2)), by(blob(3), ground_truth=True)]
    choice = {"type": "choices", "value": {"choices": ["day"]}}
    unlabelled = brush(blob(5), [])
    second = task(choice, unlabelled, brush(blob(4), ["tree", "car"]), image="b.jpg")
    source = source_of(
        tmp_path,
        task(annotations=annotations),
        second,
        task(image="c.jpg", annotations=[by(None, was_cancelled=True)]),
    )
    save_photo(source / "b.jpg", 1)
    out = imported(source, tmp_path / "out")
    assert (mask(out, "a.png") == np.where(blob(3), 0, 255)).all()
    assert (mask(out, "b.png") == np.where(blob(4), 1, 255)).all()
    printed = " ".join(capsys.readouterr().out.split())
    for text in (
        "1 tasks have several annotations",
        "1 tasks without an annotation were left out",
        "1 results of the type 'choices' were left out",
        "1 regions without a label were left out",
        "1 regions have several labels",
    ):
        assert text in printed


def test_the_name_of_the_file_is_the_split(tmp_path):
    source = source_of(tmp_path, task(brush(blob(1))))
    (source / "project.json").rename(source / "train.json")
    save_json(source / "val.json", [task(brush(blob(2)), image="b.jpg")])
    save_photo(source / "b.jpg", 1)
    out = imported(source, tmp_path / "out")
    assert (mask(out, "train/a.png") == np.where(blob(1), 0, 255)).all()
    assert (mask(out, "val/b.png") == np.where(blob(2), 0, 255)).all()


TRIANGLE = [(1, 2), (30, 4), (5, 60)]
STREAM = encoded(rgba(blob(1)))


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (task(brush(blob(1), rle=STREAM[:50])), "cut off after 50 bytes"),
        (task(brush(blob(1), rle=[])), "cut off after 0 bytes"),
        (task(brush(blob(1), rle=None)), "cut off after 0 bytes"),
        (task(brush(blob(1), rle=[300, *STREAM])), "bytes must be in range"),
        (task(brush(blob(1), rle=["x"])), "their values are not integers"),
        (task(brush(blob(1), rle=[255] * 99)), "they hold 4294967295 values instead of 96 x 128"),
        (task(brush(blob(1), rle=encoded([0] * 400))), "they hold 400 values"),
        (task(brush(blob(1), rle=[*STREAM[:8], *[255] * 99])), "a run ends at value"),
        (task(polygon(TRIANGLE[:2])), "region 1 of task 1 has 2 points"),
        (task(polygon([*TRIANGLE, (1, float("nan"))])), "nan]"),
        (task(region("rectanglelabels", "car", x=1, y=2, width="3", height=4)), '"width" of'),
        (task(region("rectanglelabels", "car", x=1, y=2, width=1e300, height=4)), "coordinates"),
        (task({**polygon(TRIANGLE), "image_rotation": 90}), "rotated by 90 degrees"),
        (task({**polygon(TRIANGLE), "original_width": 64}), "its annotation is for 96x64"),
        (task(polygon(TRIANGLE), polygon(TRIANGLE, size=(9, 9))), "images of different sizes"),
        (task(polygon(TRIANGLE, [3])), '"polygonlabels" of another type'),
        (task(polygon(TRIANGLE), image="b.jpg"), "the image 'b.jpg' does not exist"),
        (task(polygon(TRIANGLE), image="../../../etc/passwd.png"), "points outside of"),
        (task(polygon(TRIANGLE), image="video.mp4"), 'task 1 has no image in "data"'),
        (task(polygon(TRIANGLE), data=3), '"data" of task 1 has the value 3'),
        (task(annotations=[{"result": 3}]), '"result" of task 1 has the value 3'),
        (task(), "The annotations have 0 classes"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys, item, message):
    assert message in refused(source_of(tmp_path, item), tmp_path, capsys)
