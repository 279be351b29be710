"""anomalens: zero-shot visual anomaly detection. `import anomalens` is cheap; torch loads on first use."""

from typing import TYPE_CHECKING, Any

from anomalens._version import __version__

if TYPE_CHECKING:
    from anomalens.detection.detector import Detector, load_detector
    from anomalens.prediction import Prediction, Region

__all__ = ["Detector", "Prediction", "Region", "__version__", "load_detector"]

_HOMES = {
    "Detector": "anomalens.detection.detector",
    "load_detector": "anomalens.detection.detector",
    "Prediction": "anomalens.prediction",
    "Region": "anomalens.prediction",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'anomalens' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
