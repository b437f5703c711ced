"""Discovery of classes from masks and class names."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hrseg.data.analysis.class_discovery import Classes, Survey, code, find_classes, take_survey
from hrseg.errors import DataError
from tests.conftest import save_image

RNG = np.random.default_rng(0)
ROAD, CAR, BLACK = (128, 64, 128), (0, 0, 142), (0, 0, 0)


def pair(root, mask, name="a", suffix=".png", size=(20, 24)):
    image = save_image(root / f"{name}.jpg", RNG.integers(0, 256, (*size, 3), np.uint8))
    path = root / f"{name}_mask{suffix}"
    (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
    return image, path


def survey(counts, kind="grey", **facts):
    return Survey(kinds=Counter({kind: 1}), pixels=Counter(counts), **facts)


def colors(*values):
    counts = {code(color): 10 * (len(values) - i) for i, color in enumerate(values)}
    return survey(counts, "colour")


def test_pixels_are_counted_as_numpy_counts_them(tmp_path):
    masks = [RNG.choice(np.array([0, 1, 7, 255], np.uint8), (20, 24)) for _ in range(3)]
    counted = take_survey([pair(tmp_path, mask, str(i)) for i, mask in enumerate(masks)])
    ids, counts = np.unique(np.stack(masks), return_counts=True)
    assert counted.pixels == dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert counted.sizes == [(20, 24)] * 3 and counted.kinds == {"grey": 3}


def test_colours_are_counted_without_alpha(tmp_path):
    mask = np.zeros((20, 24, 4), np.uint8)
    mask[:5, :, :3] = ROAD
    counted = take_survey([pair(tmp_path, mask)])
    assert counted.pixels == {code(ROAD): 5 * 24, 0: 15 * 24} and counted.kinds == {"colour": 1}


def test_palette_masks_are_counted_by_index_and_have_colours(tmp_path):
    mask = Image.fromarray(np.full((20, 24), 1, np.uint8), mode="P")
    mask.putpalette([*BLACK, *ROAD])
    counted = take_survey([pair(tmp_path, mask)])
    assert counted.pixels == {1: 480} and counted.kinds == {"palette": 1}
    assert counted.palette[1] == ROAD


def test_masks_that_cannot_be_trained_on_are_noted(tmp_path):
    mask = RNG.integers(0, 200, (20, 24), np.uint8)
    damaged = pair(tmp_path, mask, "damaged")
    damaged[1].write_bytes(damaged[1].read_bytes()[:200])
    jpeg = pair(tmp_path, mask, "jpeg", suffix=".jpg")
    other = pair(tmp_path, mask, "other", size=(20, 20))
    counted = take_survey([damaged, jpeg, other])
    assert list(counted.unreadable) == [damaged[1]] and counted.other_size == [other[1]]
    assert counted.kinds == {"JPEG": 1, "grey": 1}


def test_contiguous_ids_have_no_id_map():
    classes = find_classes(survey({0: 5, 1: 4, 2: 1, 255: 3}))
    assert classes == Classes(["class_0", "class_1", "class_2"], [0, 1, 2])
    assert find_classes(survey({0: 5}), ["sky", "road"]).names == ["sky", "road"]


def test_ids_with_gaps_are_mapped_and_keep_their_number_in_the_name():
    classes = find_classes(survey({7: 5, 8: 4, 11: 1}))
    assert classes.names == ["class_7", "class_8", "class_11"]
    assert classes.id_map == {7: 0, 8: 1, 11: 2}
    classes = find_classes(survey({0: 5, 50: 4}), ["sky", "road"])
    assert (classes.names, classes.id_map) == (["sky", "road"], {0: 0, 50: 1})
    assert "gaps" in classes.warnings[0]


def test_only_0_and_255_are_two_classes():
    classes = find_classes(survey({0: 90, 255: 10}))
    assert classes.names == ["background", "foreground"]
    assert classes.id_map == {0: 0, 255: 1} and classes.ignore_ids == ()
    assert "255 is read as a class" in classes.warnings[0]
    assert find_classes(survey({0: 9, 255: 1}), ["sky", "cloud"]).names == ["sky", "cloud"]


def test_ids_far_apart_make_255_a_class():
    """0, 128 and 255 are grey levels, so 255 is a third class."""
    classes = find_classes(survey({0: 5, 128: 4, 255: 1}))
    assert (classes.names, classes.ignore_ids) == (["class_0", "class_128", "class_255"], ())
    assert classes.id_map == {0: 0, 128: 1, 255: 2}
    assert "255 is read as a class" in classes.warnings[0]
    two = find_classes(survey({0: 5, 128: 4, 255: 1}), ["sky", "road"])
    assert (two.names, two.ignore_ids) == (["sky", "road"], (255,))


def test_names_for_1_to_n_make_0_unlabelled():
    classes = find_classes(survey({0: 5, 1: 4, 2: 1, 3: 1}), ["wall", "floor", "tree"])
    assert (classes.names, classes.ignore_ids) == (["wall", "floor", "tree"], (0, 255))
    assert classes.id_map == {1: 0, 2: 1, 3: 2} and "0 is unlabelled" in classes.warnings[0]
    assert "data.ignore_ids=[3,255]" in classes.warnings[0]


def blended(interpolation):
    draw, masks = np.random.default_rng(0), []
    for _ in range(4):
        mask = np.zeros((40, 50), np.uint8)
        for top, left in draw.integers(0, 30, (4, 2)):
            mask[top : top + 12, left : left + 15] = 255
        masks.append(np.asarray(Image.fromarray(mask).resize((120, 90), interpolation)))
    return masks


def test_interpolated_masks_are_refused_and_many_real_classes_are_accepted(tmp_path):
    for name, how in (("cubic", Image.Resampling.BICUBIC), ("near", Image.Resampling.NEAREST)):
        pairs = [pair(tmp_path, m, f"{name}{i}", size=m.shape) for i, m in enumerate(blended(how))]
        if name == "near":
            assert find_classes(take_survey(pairs)).id_map == {0: 0, 255: 1}
            continue
        with pytest.raises(DataError, match=r"interpolated[\s\S]*Fix: .*nearest"):
            find_classes(take_survey(pairs))
    many = np.full((90, 120), 200, np.uint8)
    many[:45] = 0
    for index in range(40):  # small objects of 40 classes
        row, column = divmod(index, 10)
        many[20 * row : 20 * row + 6, 12 * column : 12 * column + 6] = 3 * index + 3
    classes = find_classes(take_survey([pair(tmp_path, many, "many", size=many.shape)]))
    assert len(classes.names) == 42


def test_names_of_void_are_ignored_at_any_position():
    last = find_classes(survey({0: 5, 1: 4, 2: 1}), ["sky", "road", "Void"])
    assert (last.names, last.id_map, last.ignore_ids) == (["sky", "road"], None, (2, 255))
    first = find_classes(survey({0: 5, 1: 4, 2: 1}), ["unlabelled", "sky", "road"])
    assert (first.names, first.id_map, first.ignore_ids) == (
        ["sky", "road"], {1: 0, 2: 1}, (0, 255))  # fmt: skip


def test_missing_names_are_placeholders_with_a_warning():
    classes = find_classes(survey({0: 5, 1: 4, 2: 1, 3: 1}), ["sky", "road"])
    assert classes.names == ["sky", "road", "class_2", "class_3"]
    assert "2 class names" in classes.warnings[0]


def test_palette_masks_give_the_classes_their_colours():
    palette = [BLACK, ROAD, (1, 1, 1), CAR]
    classes = find_classes(survey({1: 5, 3: 4}, "palette", palette=palette))
    assert classes.palette == [ROAD, CAR]
    grey = [(i, i, i) for i in range(4)]
    assert find_classes(survey({1: 5, 3: 4}, "palette", palette=grey)).palette is None


def test_colours_make_a_palette_in_an_order_that_other_images_do_not_change():
    classes = find_classes(colors(ROAD, BLACK, CAR), ["car", "road"])
    assert (classes.mask_format, classes.palette) == ("rgb", [BLACK, CAR, ROAD])
    assert find_classes(colors(CAR, ROAD, BLACK)).palette == classes.palette
    assert "black (0, 0, 0) is read as a class" in classes.warnings[1]
    assert classes.names == ["class_0", "class_1", "class_2"]
    assert (classes.id_map, classes.ignore_ids) == (None, ())
    assert "put a palette into classes.json" in classes.warnings[0]  # to match the names


def test_a_given_palette_names_its_colours_and_others_are_ignored():
    classes = find_classes(colors(ROAD, (9, 9, 9)), ["void", "car", "road"], (BLACK, CAR, ROAD))
    assert classes.names == ["car", "road"] and classes.keys == [code(CAR), code(ROAD)]
    assert classes.palette == [BLACK, CAR, ROAD, (9, 9, 9)]
    assert classes.id_map == {1: 0, 2: 1} and classes.ignore_ids == (0, 3)
    assert "1 colours are not in the palette" in classes.warnings[0]
    assert find_classes(colors(ROAD), ["road", "car"], [ROAD]).names == ["road"]


@pytest.mark.parametrize(
    ("counted", "message"),
    [
        (survey({255: 5}), "contain only 255"),
        (survey({0: 5, 70_000: 5}), r"16 bits, up to 70000[\s\S]*searchsorted\(\[0, 70000\]"),
        (survey(dict.fromkeys(range(500), 1)), r"look like instance ids[\s\S]*Fix: "),
        (colors(*((i, i, 7) for i in range(256))), "256 colours"),
    ],
)
def test_a_survey_without_usable_classes_is_an_error(counted, message):
    with pytest.raises(DataError, match=message):
        find_classes(counted)
