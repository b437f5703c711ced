"""What is written of an input, and how."""

import io
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image

from hrseg.inference.inputs import Source
from hrseg.inference.outputs import ENCODERS, Wanted, is_finished
from hrseg.inference.predictor import Prediction

OUT = Path("out")


def written(kind, **wanted):
    return [
        str(path) for path in Wanted(**wanted).paths(OUT, Source(Path("x"), "a", kind)).values()
    ]


def test_the_files_of_an_input_follow_from_its_kind_the_mask_comes_last():
    assert written("image") == ["out/overlays/a.jpg", "out/masks/a.png"]
    assert written("image", overlays=False, polygons=True, probabilities=True) == [
        "out/probabilities/a.npz", "out/polygons/a.geojson", "out/masks/a.png"
    ]  # fmt: skip
    assert written("tiles", polygons=True) == ["out/overlays/a.jpg", "out/masks/a.tif"]
    assert written("video", polygons=True) == ["out/overlays/a.mp4"]


def test_an_input_is_finished_when_all_is_there_and_newer(tmp_path):
    source = tmp_path / "a.png"
    source.write_bytes(b"")
    paths = Wanted().paths(tmp_path / "out", Source(source, "a", "image"))
    for path in paths.values():
        assert not is_finished(Source(source, "a", "image"), paths)
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert is_finished(Source(source, "a", "image"), paths)
    os.utime(source, (2e9, 2e9))
    assert not is_finished(Source(source, "a", "image"), paths)


def test_every_encoding_is_read_back():
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    scores = np.stack([mask == 0, mask == 1]).astype(np.float32) + 1
    image = np.full((2, 3, 3), 90, np.uint8)
    prediction = Prediction(image, mask, ["road", "car"], [[0, 0, 9], [9, 0, 0]], scores)
    encoded = {what: encode(prediction) for what, encode in ENCODERS.items()}
    assert np.array_equal(np.array(Image.open(io.BytesIO(encoded["masks"]))), mask)
    assert Image.open(io.BytesIO(encoded["overlays"])).size == (3, 2)
    stored = np.load(io.BytesIO(encoded["probabilities"]))
    assert stored["probabilities"][1].tolist() == [
        [np.float16(1 / 3), np.float16(2 / 3), np.float16(2 / 3)],
        [np.float16(1 / 3), np.float16(1 / 3), np.float16(2 / 3)],
    ]
    features = json.loads(encoded["polygons"])["features"]
    assert sorted(f["properties"]["pixels"] for f in features) == [3, 3]
