"""Prediction of videos: an overlay of the classes on each frame."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hrseg.errors import DataError
from hrseg.inference.prediction import Prediction
from hrseg.inference.predictor import Predictor
from hrseg.inference.prefetch import prefetch
from hrseg.utils.files import cannot_write, replacing


def predict_video(
    predictor: Predictor,
    source: Path,
    target: Path,
    on_frame: Callable[[int, Prediction], object] | None = None,
    confidence: bool = False,
) -> list[str]:
    """Write the overlays of all frames as an MP4 of the same size and rate, without sound.

    Args:
        predictor: the model.
        source: the video.
        target: the MP4 to write.
        on_frame: called with the number of each frame, from 0, and its prediction.
        confidence: compute the confidence of the predictions.

    Returns:
        Notes on unreadable frames.

    Raises:
        DataError: the file is not a video, or it has no readable frame.
        ConfigError: `target` cannot be written.
    """
    capture = _open(source)
    if not capture.isOpened():
        raise DataError(
            f"{source} cannot be read as a video.\n"
            "Expected: MP4, MOV, AVI, MKV, WebM or MPEG. Fix: convert it with ffmpeg."
        )
    rate = capture.get(cv2.CAP_PROP_FPS) or 25.0
    frame_count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # 0 or less if it is unknown
    done = 0
    with replacing(target) as partial:
        writer = cv2.VideoWriter()
        try:
            for done, frame in enumerate(prefetch(read_frames(capture), depth=4), 1):
                prediction = predictor.segment(frame, confidence=confidence)
                if done == 1:
                    code = cv2.VideoWriter.fourcc(*"mp4v")
                    if not writer.open(str(partial.absolute()), code, rate, frame.shape[1::-1]):
                        raise cannot_write(target, "this build of OpenCV has no MPEG-4 encoder.")
                writer.write(cv2.cvtColor(prediction.overlay(), cv2.COLOR_RGB2BGR))
                if on_frame:
                    on_frame(done - 1, prediction)
        finally:
            writer.release()
        if not done:
            raise DataError(
                f"{source} is a video without a readable frame.\n"
                "Expected: at least one frame. Fix: copy it again, or convert it with ffmpeg."
            )
        # OpenCV does not report write errors.
        written = int(_open(partial).get(cv2.CAP_PROP_FRAME_COUNT))
        if written != done:
            raise cannot_write(target, f"OpenCV wrote {written} of {done} frames.")
    if done < frame_count:
        return [f"{done} of {frame_count} frames could be read"]
    return []


def read_frames(capture: cv2.VideoCapture) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of an open video, upright RGB uint8 (H, W, 3), and close it."""
    try:
        while (frame := capture.read()[1]) is not None:
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def _open(path: Path) -> cv2.VideoCapture:
    """Open a file with FFmpeg only: other backends open cameras and image sequences by name."""
    return cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG)
