"""Inputs of `hrseg predict`: search of files and names of their outputs."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hrseg.errors import ConfigError
from hrseg.inference.inputs import Source, find_sources
from tests.conftest import save_image


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("photos/a.png", "photos/deep/a.jpg", "photos/.hidden/b.png", "street.png"):
        save_image(tmp_path / name, np.zeros((32, 40, 3), np.uint8))
    (tmp_path / "photos" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "clip.mp4").write_bytes(b"")
    return tmp_path


def names(sources):
    return [source.name for source in sources]


def test_files_and_patterns_are_named_by_their_stems(photos):
    assert names(find_sources(["street.png", "photos/**/*.jpg"])) == ["street", "a"]
    assert names(find_sources(["photos", "photos/a.png"])) == ["a", "clip", "deep/a"]
    assert find_sources(["photos/*.mp4"]) == [Source(Path("photos/clip.mp4"), "clip")]
    assert find_sources(["photos/*.mp4"])[0].kind == "video"


def test_two_inputs_with_the_same_output_name_are_refused(photos):
    Image.new("RGB", (40, 32)).save("photos/a.jpg")
    with pytest.raises(
        ConfigError, match=r"a.jpg and .*a.png would both be written as a.\n.*--out"
    ):
        find_sources(["photos"])


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("none.png", "none.png matches no file"), ("empty", "empty contains no image or video"),
     ("*.gif", r"\*.gif matches no file")],
)  # fmt: skip
def test_inputs_without_files_are_refused(photos, pattern, message):
    (photos / "empty").mkdir()
    with pytest.raises(ConfigError, match=message):
        find_sources([pattern])


def test_large_and_georeferenced_images_are_predicted_in_tiles(photos):
    Image.fromarray(np.zeros((4096, 8193), np.uint8)).save("large.png")
    Image.fromarray(np.zeros((4096, 8192), np.uint8)).save("whole.png")
    tags = {33550: (0.5, 0.5, 0.0), 33922: (0.0, 0.0, 0.0, 1.0, 2.0, 0.0)}
    Image.new("RGB", (40, 32)).save("geo.tif", tiffinfo=tags)
    Image.new("RGB", (40, 32)).save("plain.tif")
    sources = find_sources(["large.png", "whole.png", "geo.tif", "plain.tif"])
    assert [source.kind for source in sources] == ["tiles", "image", "tiles", "image"]


def test_search_skips_outputs_pipes_devices_folders_and_loops(photos):
    folder = photos / "photos"
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "device.png").symlink_to("/dev/zero")
    save_image(folder / "out/a_mask.png", np.zeros((32, 40), np.uint8))
    assert names(find_sources(["photos"], leave_out=folder / "out")) == ["a", "clip", "deep/a"]
