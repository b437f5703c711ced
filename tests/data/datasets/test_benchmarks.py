"""Promises that hold for every benchmark: pairs, class facts, and an error for each mistake."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data import ADE20K, LIP, Cityscapes, COCOStuff10K, PascalContext
from hrseg.errors import DataError
from tests.trees import (
    make_ade20k,
    make_cityscapes,
    make_cocostuff10k,
    make_lip,
    make_pascal_context,
)

BENCHMARKS = {
    ADE20K: (make_ade20k, 150, "0..150, 255. ADE20K has ids"),
    Cityscapes: (make_cityscapes, 19, "0..33, 255. This is not a labelIds file"),
    COCOStuff10K: (make_cocostuff10k, 171, r"0..171. .*has 0 \(ignored\) and 1..171"),
    LIP: (make_lip, 20, "0..19, 255. These are not LIP's"),
    PascalContext: (make_pascal_context, 59, "0..59, 255"),
}


@pytest.fixture(params=BENCHMARKS, ids=lambda kind: kind.__name__)
def kind(request):
    return request.param


@pytest.fixture
def tree(kind, tmp_path):
    return BENCHMARKS[kind][0](tmp_path / "sets" / "benchmark")


def test_pairs_names_and_colours(kind, tree):
    data = kind(str(tree))
    assert (len(data.files("train")), len(data.files("val"))) == (3, 2)
    assert len(data.class_names) == len(data.palette) == BENCHMARKS[kind][1]


@pytest.mark.filterwarnings("ignore:split val")
def test_an_unknown_id_is_an_error_with_its_repair(kind, tree):
    data = kind(str(tree), workers=0)
    _, mask = data.files("val")[0]
    pixels = np.array(Image.open(mask))
    pixels[:2, :3] = 254
    Image.fromarray(pixels).save(mask)
    expected = BENCHMARKS[kind][2].replace(". ", r".\s")
    with pytest.raises(DataError, match=rf"254 \(6 pixels\)\.\nExpected: {expected}"):
        data.check("validate")


def test_a_root_one_level_off_is_named(kind, tree):
    with pytest.raises(DataError, match=f"Did you mean data.root={tree}\\?"):
        kind(str(tree.parent)).files("val")
    below = next(path for path in sorted(tree.iterdir()) if path.is_dir())
    with pytest.raises(DataError, match=f"Did you mean data.root={tree}\\?"):
        kind(str(below)).files("val")


def test_the_authors_list_files_are_splits(kind, tree):
    data = kind(str(tree))
    pairs = data.files("val")
    lines = ["\t".join(str(path.relative_to(tree)) for path in pair) for pair in pairs]
    (tree / "val.lst").write_text("\n".join(lines))
    assert data.files("val.lst") == data.files(str(tree / "val.lst")) == pairs
    (tree / "val.lst").write_text("gone.jpg gone.png\n")
    with pytest.raises(DataError, match=r"val.lst, line 1: no file gone.png"):
        data.files("val.lst")
