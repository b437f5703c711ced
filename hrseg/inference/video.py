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


def predict_video(
    predictor: Predictor,
    source: Path,
    target: Path,
    each: Callable[[int, Prediction], object] | None = None,
) -> list[str]:
    """Predict each frame; write the overlays as an MP4 of the same size and rate, without sound.

    `each` is called with the number of each frame, from 0, and its prediction. The result is notes
    on the differences from the source. DataError: not a video, or without frames.
    """
    capture = _open(source)
    if not capture.isOpened():
        raise DataError(
            f"{source} cannot be read as a video.\nExpected: MP4, MOV, AVI, MKV, WebM or MPEG."
        )
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less if the header has no number
    done = 0
    with replacing(target) as partial:
        writer = cv2.VideoWriter()
        try:
            for done, frame in enumerate(ahead(read_frames(capture), depth=4), 1):
                prediction = predictor.segment(frame)
                if done == 1:
                    code = cv2.VideoWriter.fourcc(*"mp4v")
                    if not writer.open(str(partial.absolute()), code, rate, frame.shape[1::-1]):
                        raise cannot_write(target, "this build of OpenCV has no MPEG-4 encoder.")
                writer.write(cv2.cvtColor(prediction.overlay(), cv2.COLOR_RGB2BGR))
                if each:
                    each(done - 1, prediction)
        finally:
            writer.release()
        if not done:
            raise DataError(f"{source} is a video without a frame that can be read.")
        # OpenCV reports no error of writing.
        written = int(_open(partial).get(cv2.CAP_PROP_FRAME_COUNT))
        if written != done:
            raise cannot_write(target, f"OpenCV wrote {written} of {done} frames.")
    return [f"it claims {claimed} frames, {done} could be read"] if done < claimed else []


def read_frames(capture: cv2.VideoCapture) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of an open video, RGB uint8 (H, W, 3), turned upright; close it."""
    try:
        while (frame := capture.read()[1]) is not None:
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def _open(path: Path) -> cv2.VideoCapture:
    """Open a file by FFmpeg only: other backends read a name as a camera or a row of images."""
    return cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
