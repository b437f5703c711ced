"""Pairing of images and masks by name and by list file, and the errors of each mistake."""

from pathlib import Path

import pytest

from hrseg.data.pairing import Names, pair_files, read_list, read_official_list, suggest_root
from hrseg.errors import DataError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_pair_by_stem_for_any_extension_and_case(tmp_path):
    tree(tmp_path / "i", "b.JPG", "a.png", "sub/c.jpeg", "readme.txt", "._a.png")
    tree(tmp_path / "m", "a.PNG", "b.png", "sub/c.png")
    pairs = pair_files(tmp_path / "i", tmp_path / "m")
    assert [(a.name, b.name) for a, b in pairs] == [
        ("a.png", "a.PNG"), ("b.JPG", "b.png"), ("c.jpeg", "c.png"),
    ]  # fmt: skip


def test_masks_with_a_suffix_pair_even_in_the_folder_of_the_images(tmp_path):
    tree(tmp_path, "a.jpg", "a_mask.png")
    assert pair_files(tmp_path, tmp_path, Names(mask_suffix="_mask")) == [
        (tmp_path / "a.jpg", tmp_path / "a_mask.png")
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["i/0.png", "i/1.png", "i/2.png", "i/3.png", "i/4.png", "m/0_gt.png"],
         r"4 of 5 images in .* have no mask: 1\.png, 2\.png, 3\.png and 1 more[\s\S]*1_gt\.png"),
        (["i/0.png", "m/0_gt.png", "m/1_gt.png"], r"1 of 2 masks in .* have no image: 1_gt\.png"),
        (["i/a.txt", "m/a_gt.png"], "contains no images"),
        (["m/0_gt.png"], r"folder .*i does not exist[\s\S]*data\.root"),
        (["i/a.png", "i/a.jpg", "m/a_gt.png"], r"a\.jpg and a\.png have the same name"),
    ],
)  # fmt: skip
def test_unpaired_files_are_an_error_with_their_names(tmp_path, names, message):
    tree(tmp_path, *names)
    with pytest.raises(DataError, match=message):
        pair_files(tmp_path / "i", tmp_path / "m", Names(mask_suffix="_gt"))


@pytest.mark.parametrize(
    ("names", "files", "pairs"),
    [
        (Names("image_", "", "label_"), "image_1.jpg image_12.jpg label_1.png label_12.png",
         "image_1.jpg-label_1.png image_12.jpg-label_12.png"),
        (Names("", "_sat", "", "_mask"), "1_sat.jpg 1_mask.png", "1_sat.jpg-1_mask.png"),
        (Names(mask_prefix="m_"), "a.jpg m_a.png", "a.jpg-m_a.png"),
        (Names(mask_suffix=".png"), "a.jpg a.png b.jpg b.png", "a.jpg-a.png b.jpg-b.png"),
        (Names(mask_suffix="_gt.tif"), "a.jpg a_gt.tif", "a.jpg-a_gt.tif"),
    ],
)  # fmt: skip
def test_prefixes_suffixes_and_extensions_separate_files_in_one_folder(
    tmp_path, names, files, pairs
):
    tree(tmp_path, *files.split())
    found = [f"{image.name}-{mask.name}" for image, mask in pair_files(tmp_path, tmp_path, names)]
    assert found == pairs.split()


def test_upper_and_lower_case_pair_only_without_doubt(tmp_path):
    tree(tmp_path, "i/IMG_1.JPG", "m/img_1.png")
    assert len(pair_files(tmp_path / "i", tmp_path / "m")) == 1
    tree(tmp_path, "m/Img_1.png")
    with pytest.raises(DataError, match=r"1 of 1 images .* have no mask"):
        pair_files(tmp_path / "i", tmp_path / "m")


def test_files_without_a_partner_are_left_out_on_request(tmp_path):
    tree(tmp_path, "i/a.jpg", "i/b.jpg", "m/b.png", "m/c.png")
    with pytest.warns(UserWarning) as caught:
        pairs = pair_files(tmp_path / "i", tmp_path / "m", skip=True)
    assert [image.name for image, _ in pairs] == ["b.jpg"]
    assert ["a.jpg" in str(caught[0].message), "c.png" in str(caught[1].message)] == [True, True]


def test_a_link_to_a_parent_folder_ends_and_other_links_are_followed(tmp_path):
    tree(tmp_path, "i/a.jpg", "m/a.png", "elsewhere/b.jpg")
    (tmp_path / "i/loop").symlink_to(tmp_path / "i")
    (tmp_path / "i/more").symlink_to(tmp_path / "elsewhere")
    tree(tmp_path, "m/more/b.png")
    assert [image.name for image, _ in pair_files(tmp_path / "i", tmp_path / "m")] == [
        "a.jpg", "b.jpg",
    ]  # fmt: skip


def read(root: Path, text: str) -> list[tuple[str, str]]:
    (root / "train.txt").write_text(text)
    pairs = read_list(root, "train.txt", root / "images", root / "masks")
    return [tuple(path.relative_to(root).as_posix() for path in pair) for pair in pairs]


def test_lines_are_names_paths_or_pairs_of_paths(tmp_path):
    names = ["images/a.jpg", "images/b c.jpg", "images/x/d.e.jpg", "extra/i.png", "extra/m.png"]
    root = tree(tmp_path, *names, "masks/a.png", "masks/b c.png", "masks/x/d.e.png")
    assert (
        read(root, "# a comment\n\na\na.jpg\nimages/a.jpg\n")
        == [("images/a.jpg", "masks/a.png")] * 3
    )
    assert read(root, "b c\nx/d.e\r\n") == [
        ("images/b c.jpg", "masks/b c.png"), ("images/x/d.e.jpg", "masks/x/d.e.png"),
    ]  # fmt: skip
    assert read(root, "extra/i.png extra/m.png\nimages/b c.jpg\textra/m.png\n") == [
        ("extra/i.png", "extra/m.png"), ("images/b c.jpg", "extra/m.png"),
    ]  # fmt: skip


def test_pairs_of_paths_work_without_folders_of_images_and_masks(tmp_path):
    root = tree(tmp_path, "left/a.png", "gt/a_id.png")
    assert read(root, "left/a.png gt/a_id.png") == [("left/a.png", "gt/a_id.png")]


@pytest.mark.parametrize("line", ["../secret.png", "/etc/passwd", "a ../secret.png", "x/../../a"])
def test_lines_and_lists_outside_the_root_are_refused(tmp_path, line):
    tree(tmp_path, "secret.png", "train.txt")
    root = tree(tmp_path / "data", "images/a.png", "masks/a.png")
    with pytest.raises(DataError, match=r"train\.txt, line 1: .* is outside "):
        read(root, line)
    for name in ("../train.txt", str(tmp_path / "train.txt")):
        with pytest.raises(DataError, match="is outside "):
            read_list(root, name, root / "images", root / "masks")


@pytest.mark.parametrize(
    ("text", "kind"), [("a\nmissing", "image"), ("a\nimages/a.jpg masks/x.png", "mask"),
                       ("a\nlonely", "mask")]
)  # fmt: skip
def test_a_missing_file_is_an_error_with_its_line(tmp_path, text, kind):
    root = tree(tmp_path, "images/a.jpg", "masks/a.png", "images/lonely.png")
    with pytest.raises(
        DataError, match=rf"train\.txt, line 2: the {kind} of .* does not exist"
    ) as error:
        read(root, text)
    assert len(str(error.value).splitlines()) <= 4


def test_missing_and_empty_lists_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"list .*train\.txt does not exist"):
        read_list(tmp_path, "train.txt", tmp_path, tmp_path)
    with pytest.raises(DataError, match=r"train\.txt lists no images"):
        read(tmp_path, "\n# empty\n")


def test_list_from_a_windows_editor_is_read(tmp_path):
    root = tree(tmp_path, "images/a.jpg", "masks/a.png")
    (root / "train.txt").write_bytes(b"\xef\xbb\xbfa\r\n")
    assert len(read_list(root, "train.txt", root / "images", root / "masks")) == 1


@pytest.fixture
def benchmark(tmp_path):
    for name in ("images/val/1.jpg", "images/val/2.jpg", "labels/val/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def read_official(root, text):
    (root / "val.lst").write_text(text)
    return read_official_list(root, "val.lst", [root, root / "images"], [root, root / "labels"])


def test_paths_of_an_official_list_are_relative_to_the_root_or_a_folder(benchmark):
    pair = (benchmark / "images/val/1.jpg", benchmark / "labels/val/1.png")
    assert read_official(benchmark, "images/val/1.jpg\tlabels/val/1.png\n") == [pair]
    assert read_official(benchmark, "val/1.jpg val/1.png\n\nval/2.jpg\n") == [
        pair,
        (benchmark / "images/val/2.jpg", None),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val/1.jpg val/1.png val/1_rev.png", r"line 1 has 3 columns\.\n.*\n.*cut -d' ' -f1,2"),
        ("# a comment\nval/3.jpg", r"line 2: val/3.jpg does not exist.\nExpected: a file below"),
        ("../secret.png", "is outside "),
        ("\n", "lists no images"),
    ],
)
def test_faults_of_an_official_list_are_errors(benchmark, text, message):
    with pytest.raises(DataError, match=message):
        read_official(benchmark, text)


def is_root(path):
    return (path / "masks").is_dir()


@pytest.mark.parametrize("given", ["..", "../..", "masks", "masks/train"])
def test_a_root_at_most_two_levels_away_is_suggested(tmp_path, given):
    root = tmp_path / "a" / "b" / "set"
    (root / "masks" / "train").mkdir(parents=True)
    assert suggest_root((root / given).resolve(), is_root) == f"Did you mean data.root={root}?"


def test_the_outer_one_of_nested_folders_is_suggested(tmp_path):
    (tmp_path / "masks" / "masks").mkdir(parents=True)
    assert (
        suggest_root(tmp_path / "masks" / "masks", is_root) == f"Did you mean data.root={tmp_path}?"
    )


def test_nothing_is_suggested_for_the_right_root_or_without_a_root_near(tmp_path):
    (tmp_path / "set" / "masks").mkdir(parents=True)
    assert suggest_root(tmp_path / "set", is_root) == ""
    assert suggest_root(tmp_path / "x" / "y" / "z", is_root) == ""


def test_an_unreadable_folder_is_an_error_with_chmod(tmp_path, monkeypatch):
    """Permissions have no effect for root, so `os.scandir` raises."""
    (tmp_path / "masks").mkdir()

    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(
        DataError, match=r"masks cannot be read: Permission denied[\s\S]*Fix: chmod -R u"
    ):
        pair_files(tmp_path / "masks", tmp_path / "masks")
