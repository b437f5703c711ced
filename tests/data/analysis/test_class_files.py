"""Classes in the text files of annotation tools and benchmarks."""

import pytest

from hrseg.data.analysis.class_files import find_class_list

ROAD, CAR = (128, 64, 128), (0, 0, 142)


@pytest.mark.parametrize(
    ("name", "text", "names", "palette"),
    [
        ("labelmap.txt", "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::a,b\n",
         ["road", "car"], [ROAD, CAR]),
        ("class_dict.csv", "name,r,g,b\nroad surface,128,64,128\ncar,0,0,142\n",
         ["road surface", "car"], [ROAD, CAR]),
        ("class_dict_seg.csv", "name, r, g, b\nroad, 128, 64, 128\ncar, 0, 0, 142\n",
         ["road", "car"], [ROAD, CAR]),
        ("label_colors.txt", "128 64 128\tRoad\n0 0 142\t\tCar\n", ["Road", "Car"], [ROAD, CAR]),
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, cat-dog\n",
         ["background", "cat-dog"], None),
        ("objectInfo150.txt", "Idx\tRatio\tTrain\tName\n1\t0.15\t116\twall\n2\t0.1\t60\tsky, air\n",
         ["unlabelled", "wall", "sky, air"], None),
        ("labels.txt", "7: road\n9: car\n", [*[""] * 7, "road", "", "car"], None),
        ("names.csv", "name,id\nroad,0\ncar,1\n", ["road", "car"], None),
    ],
)  # fmt: skip
def test_names_ids_and_colours_are_read(tmp_path, name, text, names, palette):
    (tmp_path / name).write_text(text)
    classes = find_class_list(tmp_path)
    assert (list(classes.names), classes.palette) == (names, palette)
    assert classes.file == tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.txt", "image_1.jpg label_1.png\nimage_2.jpg label_2.png\n"),
        ("train.txt", "000012\n000017\n"),
        ("list.txt", "a.jpg 0\nb.jpg 0\n"),
        ("pairs.csv", "image,mask\na.jpg,a.png\n"),
        ("README.txt", "Photos of roads.\n3 people drew the masks.\n"),
        ("boxes.txt", "car 120 300 4000\n"),
        ("empty.csv", ""),
    ],
)
def test_other_text_files_are_not_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert find_class_list(tmp_path).file is None


def test_classes_json_has_priority_and_a_split_folder_is_searched(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/_classes.csv").write_text("Pixel Value, Class\n0, sky\n1, sea\n")
    assert find_class_list(tmp_path).names == ["sky", "sea"]
    (tmp_path / "classes.json").write_text('{"classes": ["road"]}')
    assert find_class_list(tmp_path).names == ["road"]
