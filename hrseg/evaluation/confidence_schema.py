"""Schema of the foreground's scores and of the calibration in scores.json."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from hrseg.checkpoints.metadata import Integer, Name, Number

Count = Annotated[Integer, Field(ge=0, lt=2**53)]  # exact integers in JavaScript
Ratio = Annotated[Number, Field(ge=0, le=1)] | None


class OverlapScores(BaseModel):
    """Scores of the foreground of two classes, at one threshold."""

    model_config = ConfigDict(extra="allow")

    threshold: Annotated[Number, Field(ge=0, le=1)]
    precision: Ratio
    recall: Ratio
    dice: Ratio
    iou: Ratio


class BinaryScores(OverlapScores):
    """Scores of the foreground, and their curve over the thresholds."""

    foreground: Name
    curve: Annotated[list[OverlapScores], Field(min_length=1, max_length=1000)]
    best: OverlapScores | None


class ReliabilityBin(BaseModel):
    """Pixels of one range of confidence: their number, accuracy and mean confidence."""

    model_config = ConfigDict(extra="allow")

    pixels: Count
    accuracy: Ratio
    confidence: Ratio


class Calibration(BaseModel):
    """Expected calibration error, and the bins of the reliability diagram."""

    model_config = ConfigDict(extra="allow")

    ece: Ratio
    bins: Annotated[list[ReliabilityBin], Field(min_length=1, max_length=1000)]
    temperature: Annotated[Number, Field(gt=0)] | None = None
