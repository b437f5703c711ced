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


def colors(*found):
    counts = {code(color): 10 * (len(found) - i) for i, color in enumerate(found)}
    return survey(counts, "colour")


def test_pixels_are_counted_as_numpy_counts_them(tmp_path):
    masks = [RNG.choice(np.array([0, 1, 7, 255], np.uint8), (20, 24)) for _ in range(3)]
    seen = take_survey([pair(tmp_path, mask, str(i)) for i, mask in enumerate(masks)])
    ids, counts = np.unique(np.stack(masks), return_counts=True)
    assert seen.pixels == dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert seen.sizes == [(20, 24)] * 3 and seen.kinds == {"grey": 3}


def test_colours_are_counted_without_alpha(tmp_path):
    mask = np.zeros((20, 24, 4), np.uint8)
    mask[:5, :, :3] = ROAD
    seen = take_survey([pair(tmp_path, mask)])
    assert seen.pixels == {code(ROAD): 5 * 24, 0: 15 * 24} and seen.kinds == {"colour": 1}


def test_palette_masks_are_counted_by_index_and_bring_their_colours(tmp_path):
    mask = Image.fromarray(np.full((20, 24), 1, np.uint8), mode="P")
    mask.putpalette([*BLACK, *ROAD])
    seen = take_survey([pair(tmp_path, mask)])
    assert seen.pixels == {1: 480} and seen.kinds == {"palette": 1}
    assert seen.palette[1] == ROAD


def test_masks_that_cannot_be_trained_on_are_noted(tmp_path):
    mask = RNG.integers(0, 200, (20, 24), np.uint8)
    damaged = pair(tmp_path, mask, "damaged")
    damaged[1].write_bytes(damaged[1].read_bytes()[:200])
    jpeg = pair(tmp_path, mask, "jpeg", suffix=".jpg")
    other = pair(tmp_path, mask, "other", size=(20, 20))
    seen = take_survey([damaged, jpeg, other])
    assert list(seen.unreadable) == [damaged[1]] and seen.other_size == [other[1]]
    assert seen.kinds == {"JPEG": 1, "grey": 1}


def test_contiguous_ids_need_no_map():
    found = find_classes(survey({0: 5, 1: 4, 2: 1, 255: 3}))
    assert found == Classes(["class_0", "class_1", "class_2"], [0, 1, 2])
    assert find_classes(survey({0: 5}), ["sky", "road"]).names == ["sky", "road"]


def test_ids_with_gaps_are_mapped_and_keep_their_number_in_the_name():
    found = find_classes(survey({7: 5, 8: 4, 11: 1}))
    assert found.names == ["class_7", "class_8", "class_11"]
    assert found.id_map == {7: 0, 8: 1, 11: 2}
    found = find_classes(survey({0: 5, 50: 4}), ["sky", "road"])
    assert (found.names, found.id_map) == (["sky", "road"], {0: 0, 50: 1})
    assert "gaps" in found.warnings[0]


def test_only_0_and_255_are_two_classes():
    found = find_classes(survey({0: 90, 255: 10}))
    assert found.names == ["background", "foreground"]
    assert found.id_map == {0: 0, 255: 1} and found.ignore_ids == ()
    assert "255 is taken for a class" in found.warnings[0]
    assert find_classes(survey({0: 9, 255: 1}), ["sky", "cloud"]).names == ["sky", "cloud"]


def test_ids_far_apart_make_255_a_class():
    """0, 128 and 255 are grey levels: the third class was dropped in silence."""
    found = find_classes(survey({0: 5, 128: 4, 255: 1}))
    assert (found.names, found.ignore_ids) == (["class_0", "class_128", "class_255"], ())
    assert found.id_map == {0: 0, 128: 1, 255: 2}
    assert "255 is taken for a class" in found.warnings[0]
    two = find_classes(survey({0: 5, 128: 4, 255: 1}), ["sky", "road"])
    assert (two.names, two.ignore_ids) == (["sky", "road"], (255,))


def test_names_for_1_to_n_make_0_unlabelled():
    found = find_classes(survey({0: 5, 1: 4, 2: 1, 3: 1}), ["wall", "floor", "tree"])
    assert (found.names, found.ignore_ids) == (["wall", "floor", "tree"], (0, 255))
    assert found.id_map == {1: 0, 2: 1, 3: 2} and "0 is unlabelled" in found.warnings[0]
    assert "data.ignore_ids=[3,255]" in found.warnings[0]


def blended(interpolation):
    draw, masks = np.random.default_rng(0), []
    for _ in range(4):
        mask = np.zeros((40, 50), np.uint8)
        for top, left in draw.integers(0, 30, (4, 2)):
            mask[top : top + 12, left : left + 15] = 255
        masks.append(np.asarray(Image.fromarray(mask).resize((120, 90), interpolation)))
    return masks


def test_an_interpolated_mask_is_refused_and_many_real_classes_are_not(tmp_path):
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
    found = find_classes(take_survey([pair(tmp_path, many, "many", size=many.shape)]))
    assert len(found.names) == 42


def test_names_of_void_are_ignored_at_any_position():
    last = find_classes(survey({0: 5, 1: 4, 2: 1}), ["sky", "road", "Void"])
    assert (last.names, last.id_map, last.ignore_ids) == (["sky", "road"], None, (2, 255))
    first = find_classes(survey({0: 5, 1: 4, 2: 1}), ["unlabelled", "sky", "road"])
    assert (first.names, first.id_map, first.ignore_ids) == (
        ["sky", "road"], {1: 0, 2: 1}, (0, 255))  # fmt: skip


def test_too_few_names_get_placeholders_and_a_warning():
    found = find_classes(survey({0: 5, 1: 4, 2: 1, 3: 1}), ["sky", "road"])
    assert found.names == ["sky", "road", "class_2", "class_3"]
    assert "2 class names" in found.warnings[0]


def test_palette_masks_give_the_classes_their_colours():
    palette = [BLACK, ROAD, (1, 1, 1), CAR]
    found = find_classes(survey({1: 5, 3: 4}, "palette", palette=palette))
    assert found.palette == [ROAD, CAR]
    grey = [(i, i, i) for i in range(4)]
    assert find_classes(survey({1: 5, 3: 4}, "palette", palette=grey)).palette is None


def test_colours_make_a_palette_in_an_order_that_other_images_do_not_change():
    found = find_classes(colors(ROAD, BLACK, CAR), ["car", "road"])
    assert (found.mask_format, found.palette) == ("rgb", [BLACK, CAR, ROAD])
    assert find_classes(colors(CAR, ROAD, BLACK)).palette == found.palette
    assert "black (0, 0, 0) is taken for a class" in found.warnings[1]
    assert found.names == ["class_0", "class_1", "class_2"]
    assert (found.id_map, found.ignore_ids) == (None, ())
    assert "put a palette into classes.json" in found.warnings[0]  # to match the names


def test_a_given_palette_names_the_colours_and_the_others_are_ignored():
    found = find_classes(colors(ROAD, (9, 9, 9)), ["void", "car", "road"], (BLACK, CAR, ROAD))
    assert found.names == ["car", "road"] and found.keys == [code(CAR), code(ROAD)]
    assert found.palette == [BLACK, CAR, ROAD, (9, 9, 9)]
    assert found.id_map == {1: 0, 2: 1} and found.ignore_ids == (0, 3)
    assert "1 colours are not in the palette" in found.warnings[0]
    assert find_classes(colors(ROAD), ["road", "car"], [ROAD]).names == ["road"]


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (survey({255: 5}), "nothing but 255"),
        (survey({0: 5, 70_000: 5}), r"16 bits, up to 70000[\s\S]*searchsorted\(\[0, 70000\]"),
        (survey(dict.fromkeys(range(500), 1)), r"look like instance ids[\s\S]*Fix: "),
        (colors(*((i, i, 7) for i in range(256))), "256 colours"),
    ],
)
def test_a_survey_without_usable_classes_is_an_error(seen, message):
    with pytest.raises(DataError, match=message):
        find_classes(seen)
