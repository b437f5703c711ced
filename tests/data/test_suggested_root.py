import pytest

from hrseg.data.pairing import suggest_root


def holds(path):
    return (path / "masks").is_dir()


@pytest.mark.parametrize("given", ["..", "../..", "masks", "masks/train"])
def test_a_root_up_to_two_levels_off_is_found(tmp_path, given):
    root = tmp_path / "a" / "b" / "set"
    (root / "masks" / "train").mkdir(parents=True)
    assert suggest_root((root / given).resolve(), holds) == f"Did you mean data.root={root}?"


def test_of_nested_folders_the_outer_one_is_meant(tmp_path):
    (tmp_path / "masks" / "masks").mkdir(parents=True)
    assert (
        suggest_root(tmp_path / "masks" / "masks", holds) == f"Did you mean data.root={tmp_path}?"
    )


def test_nothing_is_suggested_for_the_right_root_or_where_nothing_is(tmp_path):
    (tmp_path / "set" / "masks").mkdir(parents=True)
    assert suggest_root(tmp_path / "set", holds) == ""
    assert suggest_root(tmp_path / "x" / "y" / "z", holds) == ""
