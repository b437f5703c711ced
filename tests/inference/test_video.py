"""Prediction of videos."""

import cv2
import numpy as np
import pytest

from hrseg.errors import DataError
from hrseg.inference.prediction import Prediction
from hrseg.inference.video import predict_video, read_frames


class Brightness:
    """A model whose class 1 is the bright part of a frame."""

    def segment(self, pixels, **options):
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
def test_the_output_has_the_size_rate_and_number_of_frames_of_the_source(tmp_path, size):
    source, target = clip(tmp_path / "in.mp4", size=size), tmp_path / "out" / "in.mp4"
    masks = {}
    notes = predict_video(Brightness(), source, target, lambda n, p: masks.update({n: p.mask}))
    assert notes == []
    assert list(masks) == list(range(7))
    assert masks[6][:, 0].all() and not masks[6][:, -1].any()
    video = cv2.VideoCapture(str(target))
    assert (video.get(cv2.CAP_PROP_FPS), video.get(cv2.CAP_PROP_FRAME_COUNT)) == (12.5, 7)
    last = list(read_frames(video))[-1]
    assert last.shape == (*size, 3)
    assert last[10, 5].tolist() == pytest.approx([228, 128, 128], abs=16)  # white half red
    assert [path.name for path in target.parent.iterdir()] == ["in.mp4"]


def test_a_truncated_video_is_predicted_up_to_the_first_unreadable_frame(tmp_path):
    source = clip(tmp_path / "in.avi", frames=40, code="MJPG")
    data = source.read_bytes()
    source.write_bytes(data[: len(data) * 2 // 3])
    notes = predict_video(Brightness(), source, tmp_path / "out.mp4")
    count = cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT)
    assert 0 < count < 40
    assert "could be read" in notes[0]


def test_a_file_that_is_not_a_video_raises_an_error_and_leaves_no_output(tmp_path):
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(DataError, match=r"text.mp4 cannot be read as a video"):
        predict_video(Brightness(), tmp_path / "text.mp4", tmp_path / "out" / "text.mp4")
    assert not (tmp_path / "out" / "text.mp4").exists()
