"""Videos in, videos out."""

import cv2
import numpy as np
import pytest

from hrseg.errors import DataError
from hrseg.inference.predictor import Prediction
from hrseg.inference.video import Frames, count_frames, predict_video


class Brightness:
    """A model that sees class 1 where a frame is bright."""

    def segment(self, pixels):
        mask = (pixels[..., 0] > 127).astype(np.uint8)
        return Prediction(pixels, mask, ["dark", "bright"], [[0, 0, 200], [200, 0, 0]])


def clip(path, frames=7, size=(50, 66), code="mp4v"):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), 12.5, size[::-1])
    for number in range(frames):
        frame = np.zeros((*size, 3), np.uint8)
        frame[:, : size[1] * number // frames] = 255
        writer.write(frame)
    writer.release()
    return path


@pytest.mark.parametrize("size", [(48, 64), (50, 66)])
def test_a_video_keeps_its_size_rate_and_number_of_frames(tmp_path, size):
    source, target = clip(tmp_path / "in.mp4", size=size), tmp_path / "out" / "in.mp4"
    seen = []
    notes = predict_video(Brightness(), source, target, lambda n, p: seen.append((n, p.mask)))
    assert notes == ["sound is left out"]
    assert [number for number, _ in seen] == list(range(7))
    assert seen[6][1][:, 0].all() and not seen[6][1][:, -1].any()
    out = Frames(target)
    assert (out.rate, out.claimed) == (12.5, 7)
    last = list(out)[-1]
    assert last.shape == (*size, 3)
    assert last[10, 5].tolist() == pytest.approx([228, 128, 128], abs=16)  # white half red
    assert [path.name for path in target.parent.iterdir()] == ["in.mp4"]


def test_the_same_video_gives_the_same_bytes(tmp_path):
    source = clip(tmp_path / "in.avi", code="MJPG")
    for name in ("a.mp4", "b.mp4"):
        predict_video(Brightness(), source, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_truncated_video_is_predicted_as_far_as_it_goes_and_said(tmp_path):
    source = clip(tmp_path / "in.avi", frames=40, code="MJPG")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    notes = predict_video(Brightness(), source, tmp_path / "out.mp4")
    assert 0 < count_frames(tmp_path / "out.mp4") < 40
    assert "could be read" in notes[1]


def test_what_is_no_video_is_named_and_leaves_nothing(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(DataError, match=r"text.mp4 is no readable video"):
        predict_video(Brightness(), tmp_path / "text.mp4", tmp_path / "out" / "text.mp4")
    assert not (tmp_path / "out" / "text.mp4").exists()


def test_an_error_in_a_frame_leaves_nothing_half_written(tmp_path):
    def stop(number, prediction):
        raise KeyboardInterrupt

    source = clip(tmp_path / "in.mp4")
    with pytest.raises(KeyboardInterrupt):
        predict_video(Brightness(), source, tmp_path / "out" / "in.mp4", stop)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "code"), [("a.mp4", "mp4v"), ("a.avi", "MJPG"), ("a.mkv", "mp4v"), ("a.mov", "mp4v")]
)
def test_each_kind_of_video_that_opencv_writes_is_read(name, code, tmp_path):
    assert len(list(Frames(clip(tmp_path / name, code=code)))) == 7
