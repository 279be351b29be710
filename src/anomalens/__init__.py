"""Find defects in photographs, by words or taught from good ones. Importing it is cheap: all else loads when used."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from anomalens._version import __version__

if TYPE_CHECKING:
    from anomalens.backbones.registry import list_backbones
    from anomalens.datasets.layouts import open_dataset
    from anomalens.decision.calibration import Calibration
    from anomalens.detection.calibrating import calibrate
    from anomalens.detection.detector import Detector
    from anomalens.detection.loading import load_detector
    from anomalens.detection.session import Session
    from anomalens.errors import (
        AnomalensError,
        ConfigError,
        InputError,
        MissingExtraError,
        TrainingError,
        WeightsError,
    )
    from anomalens.evaluation.evaluator import evaluate
    from anomalens.methods.base import list_methods
    from anomalens.options import LoadOptions
    from anomalens.prediction import Failure, Prediction, Region

__all__ = [
    "AnomalensError",
    "Calibration",
    "ConfigError",
    "Detector",
    "Failure",
    "InputError",
    "LoadOptions",
    "MissingExtraError",
    "Prediction",
    "Region",
    "Session",
    "TrainingError",
    "WeightsError",
    "__version__",
    "calibrate",
    "evaluate",
    "list_backbones",
    "list_methods",
    "load_detector",
    "open_dataset",
]

_HOMES = {
    "AnomalensError": "errors",
    "Calibration": "decision.calibration",
    "ConfigError": "errors",
    "Detector": "detection.detector",
    "Failure": "prediction",
    "InputError": "errors",
    "LoadOptions": "options",
    "MissingExtraError": "errors",
    "Prediction": "prediction",
    "Region": "prediction",
    "Session": "detection.session",
    "TrainingError": "errors",
    "WeightsError": "errors",
    "calibrate": "detection.calibrating",
    "evaluate": "evaluation.evaluator",
    "list_backbones": "backbones.registry",
    "list_methods": "methods.base",
    "load_detector": "detection.loading",
    "open_dataset": "datasets.layouts",
}

# Silent unless the program that uses the library says where its log goes.
logging.getLogger("anomalens").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anomalens' has no attribute '{name}'")
    from anomalens.extras import torch_needed

    with torch_needed(f"anomalens.{name}"):
        return getattr(import_module(f"anomalens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
