"""CVAT for images 1.1: shapes, masks, layers and splits, and damaged or hostile XML."""

from itertools import groupby
from xml.sax.saxutils import quoteattr

import numpy as np
import pytest

from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    blob,
    imported,
    mask,
    objects,
    painted,
    refused,
    save_photo,
    truth,
)

LARGE = (600, 800)
LABELS = "".join(
    f"<label><name>{name}</name><color>#{10 * i:06x}</color><type>any</type></label>"
    for i, name in enumerate(NAMES)
)


def element(tag, label="car", z=0, **attributes):
    values = "".join(f" {key}={quoteattr(str(value))}" for key, value in attributes.items())
    return f'<{tag} label="{label}" source="manual" occluded="0"{values} z_order="{z}"></{tag}>'


def polygon(points, label="car", z=0):
    return element("polygon", label, z, points=";".join(f"{x:.2f},{y:.2f}" for x, y in points))


def area(pixels, label="car", z=0, **changes):
    """Return a mask element: runs outside and inside by turns, row by row in the box."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    crop = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    runs = [] if not crop[0, 0] else [0]
    runs += [len(list(group)) for _, group in groupby(crop.ravel().tolist())]
    corner = {"left": columns[0], "top": rows[0], "width": crop.shape[1], "height": crop.shape[0]}
    return element("mask", label, z, **{"rle": ", ".join(map(str, runs)), **corner, **changes})


def xml(*images, labels=LABELS):
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return f"{head}<annotations><version>1.1</version>{meta}{''.join(images)}</annotations>"


def image(name, *elements, size=SIZE, more=""):
    height, width = size
    inside = "".join(elements)
    return f'<image id="0" name="{name}" width="{width}" height="{height}"{more}>{inside}</image>'


def source_of(tmp_path, text, size=SIZE):
    save_photo(tmp_path / "set/images/a.jpg", size=size)
    (tmp_path / "set/annotations.xml").write_text(text)
    return tmp_path / "set"


def drawn(tmp_path, *elements, size=SIZE):
    """Import one image with these elements; return its mask."""
    source = source_of(tmp_path, xml(image("a.jpg", *elements, size=size)), size)
    return mask(imported(source, tmp_path / "out"), "a.png")


def test_polygons_have_the_pixels_of_pycocotools(tmp_path):
    scene = objects(1, LARGE, (280, 190, 120, 75, 45))
    ids = drawn(tmp_path, *(polygon(points, name) for name, points in scene), size=LARGE)
    equal = np.mean(ids == truth(scene, size=LARGE))
    print(f"equal pixels: {equal:.4%}")
    assert equal >= 0.999


def test_masks_are_exact(tmp_path):
    layers = [blob(1), blob(2) & ~blob(3), np.zeros(SIZE, bool)]
    layers[2][0, 0] = True
    elements = [area(pixels, name) for name, pixels in zip(NAMES, layers, strict=True)]
    assert np.array_equal(drawn(tmp_path, *elements), painted(enumerate(layers)))


def test_a_higher_layer_covers_a_smaller_shape_of_a_lower_layer(tmp_path):
    small, large = np.zeros((2, *SIZE), bool)
    small[20:30, 20:30], large[10:60, 10:60] = True, True
    ids = drawn(tmp_path, area(small, "car", 0), area(large, "tree", 1))
    assert set(ids[large]) == {2}
    assert np.array_equal(
        mask(imported(source_of(tmp_path, xml(image("a.jpg", area(small), area(large, "tree")))),
                      tmp_path / "same_layer"), "a.png"),
        painted([(2, large), (1, small)]),
    )  # fmt: skip


def test_boxes_and_ellipses_are_drawn_and_turned(tmp_path):
    box = element("box", "road", xtl=10, ytl=20, xbr=30, ybr=60)
    turned = element("box", "car", xtl=60, ytl=20, xbr=80, ybr=60, rotation=90)
    ellipse = element("ellipse", "tree", cx=100, cy=70, rx=20, ry=10)
    ids = drawn(tmp_path, box, turned, ellipse)
    assert np.array_equal(np.argwhere(ids == 0).min(0), (20, 10))
    assert (ids == 0).sum() == 40 * 20
    # About the centre (70, 40) the width and the height change places.
    assert (ids[30:50, 50:90] == 1).all() and (ids == 1).sum() == 40 * 20
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    inside = ((x - 100) / 20) ** 2 + ((y - 70) / 10) ** 2 < 1
    assert np.mean((ids == 2) == inside) >= 0.999


def test_subsets_are_splits_and_shapes_without_an_area_are_counted(tmp_path, capsys):
    line = element("polyline", points="1,2;3,4")
    images = [
        image("a.jpg", area(blob(1)), line, more=' subset="Train"'),
        image("deep/b.jpg", line, more=' subset="Validation"'),
    ]
    source = source_of(tmp_path, xml(*images))
    save_photo(source / "images/Validation/deep/b.jpg", 1)
    out = imported(source, tmp_path / "out")
    assert (mask(out, "train/a.png") == np.where(blob(1), 1, 255)).all()
    assert (mask(out, "val/b.png") == 255).all()
    assert "2 polyline elements were left out" in capsys.readouterr().out


def test_labels_without_an_area_are_no_classes(tmp_path):
    other = "".join(
        f"<label><name>{kind}</name><type>{kind}</type></label>" for kind in ("tag", "points")
    )
    text = xml(image("a.jpg", area(blob(1), "tree")), labels=other + LABELS)
    out = imported(source_of(tmp_path, text), tmp_path / "out")
    assert (out / "classes.txt").read_text().split() == list(NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (xml(image("a.jpg", polygon([(1, 2), (3, 4)]))), "has 2 points"),
        (xml(image("a.jpg", element("polygon", points="1,2;3;4,5"))), "not pairs of numbers"),
        (xml(image("a.jpg", element("polygon", points="1,2;nan,3;4,5"))), "coordinates [nan, 3.0]"),
        (xml(image("a.jpg", polygon([(1, 2), (3, 4), (5, 9)], "bus"))), "unknown class 'bus'"),
        (xml(image("a.jpg", area(blob(1), rle="3, 5"))), "run lengths for 8 pixels"),
        (xml(image("a.jpg", area(blob(1), rle="3, -5"))), "run lengths for -2 pixels"),
        (xml(image("a.jpg", area(blob(1), rle="9" * 5000))), "run lengths that are not integers"),
        (xml(image("a.jpg", area(blob(1), width=10**6))), "at most 96x128"),
        (xml(image("a.jpg", area(blob(1), left=90))), "does not fit into its image"),
        (xml(image("a.jpg", element("box", xtl=1, ytl=2, xbr="x", ybr=3))), 'attribute xbr="x"'),
        (xml(image("b.jpg")), "the image 'b.jpg' does not exist"),
        (xml(image("../../../etc/passwd")), "points outside of"),
        (xml(image("a.jpg", size=(96, 129))), "its annotation is for 96x129 pixels"),
        (xml(image("a.jpg"), image("a.jpg")), "has two annotations"),
        (xml(), "none of them has an annotated image"),
        (xml(image("a.jpg"))[:-5], "invalid XML"),
        (xml('<track id="0" label="car"></track>'), "tracks of a video"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys, text, message):
    assert message in refused(source_of(tmp_path, text), tmp_path, capsys)


def test_entities_are_refused(tmp_path, capsys):
    entities = "".join(f'<!ENTITY l{i + 1} "{f"&l{i};" * 10}">' for i in range(9))
    bomb = f'<!DOCTYPE x [<!ENTITY l0 "ha">{entities}]>'
    file = '<!DOCTYPE x [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>'
    for document_type in (bomb, file):
        text = xml(image("a.jpg")).replace("<annotations>", f"{document_type}<annotations>&l9;")
        message = refused(source_of(tmp_path, text), tmp_path, capsys)
        assert "annotations.xml: a document type (<!DOCTYPE ...>) is not allowed" in message
