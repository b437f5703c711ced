"""Prediction of videos: overlays of the classes on each frame."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrseg.errors import DataError
from hrseg.inference.predictor import Prediction, Predictor
from hrseg.inference.prefetch import ahead
from hrseg.utils.files import cannot_write, replacing

Array = NDArray[np.uint8]


def predict_video(
    predictor: Predictor,
    source: Path,
    target: Path,
    each: Callable[[int, Prediction], object] | None = None,
) -> list[str]:
    """Predict each frame; write the overlays as an MP4 of the same size and rate, without sound.

    Args:
        predictor: the model.
        source: what OpenCV can read.
        target: the file to write, whole or not at all.
        each: called with the number of each frame, from 0, and its prediction.

    Returns:
        Notes: what is not as in the source.

    Raises:
        DataError: not a video, or one without frames.
        ConfigError: the disk is full.
    """
    frames = Frames(source)
    notes = ["sound is left out"]
    done = 0
    with replacing(target) as partial:
        writer = cv2.VideoWriter()
        try:
            for done, frame in enumerate(ahead(iter(frames), depth=4), 1):
                prediction = predictor.segment(frame)
                if not writer.isOpened():
                    _open(writer, partial, frames.rate, frame)
                writer.write(cv2.cvtColor(prediction.overlay(), cv2.COLOR_RGB2BGR))
                if each:
                    each(done - 1, prediction)
        finally:
            writer.release()
        if not done:
            raise DataError(f"{source} is a video without a frame that can be read.")
        # OpenCV does not say that it could not write.
        if count_frames(partial) != done:
            reason = f"OpenCV wrote {count_frames(partial)} of {done} frames."
            raise cannot_write(target, reason)
    if done < frames.claimed:
        notes.append(f"it claims {frames.claimed} frames, {done} could be read")
    return notes


class Frames:
    """The frames of a video, RGB uint8 (H, W, 3), turned upright.

    Attributes:
        rate: frames per second.
        claimed: the number of frames by the header, 0 if it does not say.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            DataError: it is no video.
        """
        self.capture = _open_capture(path)
        if not self.capture.isOpened():
            raise DataError(
                f"{path} is no readable video.\nExpected MP4, MOV, AVI, MKV, WebM or MPEG."
            )
        self.rate = self.capture.get(cv2.CAP_PROP_FPS) or 25.0
        self.claimed = max(0, int(self.capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[Array]:
        """Yield the frames, once."""
        try:
            while True:
                more, frame = self.capture.read()
                if not more:
                    return
                yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
        finally:
            self.capture.release()


def count_frames(path: Path) -> int:
    """Return how many frames a file claims to hold; 0 for what is no video."""
    capture = _open_capture(path)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()


def _open_capture(path: Path) -> cv2.VideoCapture:
    """Open a file by FFmpeg alone: other backends read a name as a camera or a row of images."""
    return cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)


def _open(writer: cv2.VideoWriter, path: Path, rate: float, frame: Array) -> None:
    height, width = frame.shape[:2]
    code = cv2.VideoWriter.fourcc(*"mp4v")
    if not writer.open(str(path.absolute()), code, rate, (width, height)):
        raise cannot_write(path, "this build of OpenCV has no MPEG-4 encoder.")
