"""Semantic segmentation with the High-Resolution Network (arXiv 1908.07919).

The public names are imported on first use, so that `import hrseg` is fast and imports no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hrseg.utils.constants import __version__ as __version__

if TYPE_CHECKING:
    from hrseg import data as data
    from hrseg import losses as losses
    from hrseg import models as models
    from hrseg.checkpoints.loading import load_weights as load_weights
    from hrseg.config.protocols import Protocol as Protocol
    from hrseg.inference.predictor import load as load
    from hrseg.metrics.confusion import ConfusionMatrix as ConfusionMatrix
    from hrseg.models import create_model as create_model
    from hrseg.training.callbacks import ClassScores as ClassScores
    from hrseg.training.optimizers import OPTIMIZERS as optimizers  # noqa: F401
    from hrseg.training.optimizers import SCHEDULES as schedules  # noqa: F401
    from hrseg.training.task import SegmentationTask as SegmentationTask

_HOME = {
    "ClassScores": "hrseg.training.callbacks",
    "ConfusionMatrix": "hrseg.metrics.confusion",
    "Protocol": "hrseg.config.protocols",
    "SegmentationTask": "hrseg.training.task",
    "create_model": "hrseg.models",
    "load": "hrseg.inference.predictor",
    "load_weights": "hrseg.checkpoints.loading",
}
_MODULES = ("data", "losses", "models")
_REGISTRIES = {"optimizers": "OPTIMIZERS", "schedules": "SCHEDULES"}
__all__ = [*_HOME, *_MODULES, *_REGISTRIES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"hrseg.{name}")
    if name in _REGISTRIES:
        return getattr(import_module("hrseg.training.optimizers"), _REGISTRIES[name])
    raise AttributeError(f"module 'hrseg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
