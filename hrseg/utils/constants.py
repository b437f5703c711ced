"""Package version and the constants of label maps."""

__version__ = "0.1.0"

IGNORE_INDEX = 255  # train id of pixels excluded from training and scores
