"""Near-duplicates and frames of one recording on both sides of a split."""

import io
import os
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from hrseg.data.analysis.leakage import Pictures, find_leakage, read_pictures
from hrseg.data.analysis.signatures import hashes, mirrored, signature
from tests.conftest import picture, save_image

CAMVID = Path(os.environ.get("HRSEG_CAMVID", "missing"))
ROOT = Path("/data")
needs_camvid = pytest.mark.skipif(not (CAMVID / "train").is_dir(), reason="needs CamVid")


def jpeg(image):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def resized(image, size):
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


CHANGES = {
    "jpeg": jpeg,
    "half": lambda image: resized(image, (80, 60)),
    "double": lambda image: resized(image, (320, 240)),
    "brighter": lambda image: np.minimum(image * 1.1, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.9).astype(np.uint8),
    "crop": lambda image: image[1:-1, 2:-2],
    "mirror": lambda image: image[:, ::-1].copy(),
}


def side(split, images, names=None):
    """Return pictures of a split; numbered names are no recording, as the photos are unrelated."""
    names = names or [f"IMG_{index:04}" for index in range(len(images))]
    paths = [ROOT / split / f"{name}.png" for name in names]
    return Pictures(ROOT, split, paths, np.stack([signature(image) for image in images]))


def photos(count, seed):
    return [picture((120, 160), seed * 1000 + index) for index in range(count)]


def film(count, seed, speed=24):
    """Return frames of a camera that pans over a wide landscape, `speed` pixels per frame."""
    wide = np.random.default_rng(seed).integers(0, 256, (4, speed * count // 48 + 6, 3), np.uint8)
    wide = resized(wide, (wide.shape[1] * 48, 120))
    return [wide[:, speed * index : speed * index + 160] for index in range(count)]


def test_hash_and_correlation_agree_with_another_implementation_of_the_dct():
    image = picture((120, 160), 5)
    grey = cv2.cvtColor(
        cv2.resize(image, (32, 32), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY
    )
    low = dctn(grey.astype(float), norm="ortho")[:8, :8].ravel()
    low[0] = 0
    np.testing.assert_allclose(signature(image), low / np.sqrt((low**2).sum()), atol=1e-5)
    bits = "".join("1" if value > np.median(low[1:]) else "0" for value in low)
    assert hashes(signature(image)[None]).tobytes() == int(bits, 2).to_bytes(8)


def test_mirrored_signatures_are_those_of_mirrored_pictures():
    image = picture((120, 160), 6)
    np.testing.assert_allclose(
        mirrored(signature(image)[None])[0], signature(image[:, ::-1].copy()), atol=1e-5
    )


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_other_pictures_are_not(change):
    originals, others = photos(40, 1), photos(40, 2)
    leakage = find_leakage(
        side("train", originals), side("val", [CHANGES[change](x) for x in originals[:20]] + others)
    )
    pairs = {(Path(pair.image).stem, Path(pair.train).stem) for pair in leakage.neighbours}
    assert pairs == {(f"IMG_{index:04}", f"IMG_{index:04}") for index in range(20)}
    assert {pair.kind for pair in leakage.neighbours} == {"picture"}
    assert leakage.total == 60 and leakage.share == pytest.approx(1 / 3)


def test_pictures_without_contrast_are_no_duplicates():
    black = [np.full((50, 50, 3), value, np.uint8) for value in (0, 0, 90)]
    assert not find_leakage(side("train", black), side("val", black)).neighbours


def test_only_frames_near_a_training_frame_are_counted():
    frames = film(40, 3)
    names = [f"drive_{60 * number:05}" for number in range(40)]
    odd = [*range(1, 20, 2), *range(25, 40)]  # training ends at number 1320: 1500 is too far
    train = side("train", frames[:23:2], names[:23:2])
    leakage = find_leakage(train, side("val", [frames[k] for k in odd], [names[k] for k in odd]))
    assert {Path(pair.image).stem for pair in leakage.neighbours} == {names[k] for k in odd[:10]}
    assert kinds(leakage) == {"frame": 10}


def test_unrelated_photos_with_consecutive_numbers_are_no_recording():
    images = photos(80, 4)
    names = [f"DSC_{index:04}" for index in range(80)]
    train, other = side("train", images[::2], names[::2]), side("val", images[1::2], names[1::2])
    assert not find_leakage(train, other).neighbours


def kinds(leakage):
    return Counter(pair.kind for pair in leakage.neighbours)


def test_recordings_are_distinguished_by_folder_and_name():
    frames = film(60, 5)  # shifted by 15 % of the width: no near-duplicates
    names = [f"a/drive_{number:05}" for number in range(60)]
    train = side("train", frames[::2], names[::2])
    assert kinds(find_leakage(train, side("val", frames[1::2], names[1::2]))) == {"frame": 30}
    for other in ("a/tour_", "b/drive_"):
        renamed = [name.replace("a/drive_", other) for name in names[1::2]]
        assert not kinds(find_leakage(train, side("val", frames[1::2], renamed)))


def test_the_message_has_the_share_examples_and_the_fix():
    originals = photos(10, 7)
    summary = find_leakage(
        side("train", originals), side("val", originals[:3] + photos(1, 8))
    ).summary()
    assert summary["near_neighbours"] == summary["similar_pictures"] == 3
    assert summary["images"] == 4 and summary["frames"] == 0
    assert summary["examples"][0] == {
        "image": "val/IMG_0000.png", "train": "train/IMG_0000.png", "kind": "picture",
    }  # fmt: skip
    first, second = summary["message"].splitlines()
    assert first.startswith("3 of 4 images of split val (75.0 %) have a near neighbour in training")
    assert "Fix: " in second and "data.group_by" in second


def test_an_unreadable_image_resembles_no_other(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    path = save_image(tmp_path / "b.png", picture((40, 40)))
    signatures = read_pictures(tmp_path, "train", [tmp_path / "a.png", path]).signatures
    assert not signatures[0].any() and np.linalg.norm(signatures[1]) == pytest.approx(1)
    empty = read_pictures(tmp_path, "val", [])
    pictures = read_pictures(tmp_path, "train", [path])
    assert not find_leakage(pictures, empty).neighbours
    assert not find_leakage(empty, pictures).neighbours


@needs_camvid
def test_camvid_validates_on_the_drive_of_its_training_images():
    """All validation images are of drive 0016E5, 31 to 135 frames from a training frame."""
    sides = [sorted((CAMVID / split).iterdir()) for split in ("train", "val")]
    train, val = (
        read_pictures(CAMVID, split, paths)
        for split, paths in zip(("train", "val"), sides, strict=True)
    )
    leakage = find_leakage(train, val)
    assert len(leakage.neighbours) == leakage.total == 101


@needs_camvid
def test_camvid_drives_kept_apart_have_no_neighbours():
    paths = sorted((CAMVID / "train").iterdir())
    apart = [path for path in paths if path.name.startswith("0001TP")]
    rest = [path for path in paths if not path.name.startswith("0001TP")]
    train, val = read_pictures(CAMVID, "train", rest), read_pictures(CAMVID, "train", apart)
    assert not find_leakage(train, val).neighbours and len(apart) == 62
