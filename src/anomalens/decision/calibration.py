"""From scores to decisions: thresholds and the heatmap's fixed scale, as data beside the weights.

Raw scores are never changed by any of this; a threshold is a number that says where it came from.
"""

import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomalens._version import __version__
from anomalens.decision.conformal import p_value
from anomalens.errors import ConfigError
from anomalens.files import write_json

if TYPE_CHECKING:
    from anomalens.methods.base import Method

BUNDLED = "bundled"
_SCHEMA = 1


@dataclass(frozen=True)
class Calibration:
    """What turns a method's raw numbers on one backbone into decisions and colours."""

    threshold: float  # image-level: anomalous where score > threshold
    pixel_threshold: float  # pixel-level: in the mask where map > pixel_threshold
    heat_range: tuple[float, float]  # map values of the coldest and the hottest colour, fixed for all images
    source: str  # where the numbers come from, in words
    pooling: float = 0.0  # share of the map in the image score: score = (1 - pooling) * method's + pooling * map's top
    top: float = 0.01  # share of the map's pixels, the highest ones, whose mean is "the map's top"
    options: dict[str, Any] = field(default_factory=dict)  # the method's options that the numbers hold for
    normal_scores: tuple[float, ...] = ()  # of normal images, ascending; what p-values are counted in

    def __post_init__(self) -> None:
        low, high = self.heat_range
        if not low < high:
            raise ConfigError(f"heat range {self.heat_range} must rise from cold to hot")
        if not (math.isfinite(self.threshold) and math.isfinite(self.pixel_threshold)):
            raise ConfigError(f"thresholds must be finite, found {self.threshold} and {self.pixel_threshold}")
        if not 0 <= self.pooling <= 1 or not 0 < self.top <= 1:
            raise ConfigError(f"pooling {self.pooling} must lie in [0, 1] and top {self.top} in (0, 1]")
        if list(self.normal_scores) != sorted(self.normal_scores) or not all(map(math.isfinite, self.normal_scores)):
            raise ConfigError("normal scores must be finite and in ascending order")

    @classmethod
    def neutral(cls, method: "Method") -> "Calibration":
        """Where nothing is known: the point where normal and abnormal prompts are equally near."""
        low, high = method.heat_range
        return cls(0.5, (low + high) / 2, (low, high), "neutral point (not calibrated for this backbone)")

    def used_with(self, *unlike: str) -> "Calibration":
        """The same where settings differ from those it was made with, which the source then says; "size=64"."""
        return replace(self, source=f"{self.source}; not made for {', '.join(unlike)}") if unlike else self

    def override(self, threshold: float | None, pixel_threshold: float | None) -> "Calibration":
        """The same with numbers the user gave, which the source then says."""
        given = self
        if threshold is not None:
            given = replace(given, threshold=threshold, source="given by the user")
        if pixel_threshold is not None:
            given = replace(given, pixel_threshold=pixel_threshold)
        return given

    def pooled(self, scores: npt.NDArray[np.float32], maps: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """A method's scores [B] with the top of its maps [B, H, W] mixed in, as `pooling` and `top` say."""
        if not self.pooling:
            return scores
        flat = maps.reshape(len(maps), -1)
        count = max(1, round(self.top * flat.shape[1]))
        highest = np.partition(flat, -count, axis=1)[:, -count:].mean(axis=1)
        mixed: npt.NDArray[np.float32] = ((1 - self.pooling) * scores + self.pooling * highest).astype(np.float32)
        return mixed

    def p_value(self, score: float) -> float | None:
        """How rare so high a score is among normal images, in (0, 1]; None without scores of normal images."""
        return p_value(self.normal_scores, score) if self.normal_scores else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` is its inverse."""
        return {**asdict(self), "heat_range": list(self.heat_range), "normal_scores": list(self.normal_scores)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "Calibration":
        """Raises ConfigError naming what is missing or unknown."""
        try:
            low, high = value["heat_range"]
            scores = tuple(float(score) for score in value.get("normal_scores", ()))
            return cls(**{**value, "heat_range": (float(low), float(high)), "normal_scores": scores})
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"not a calibration: {error}") from error


@dataclass(frozen=True)
class CalibrationTable:
    """The calibrations of one set of weights: one a method, and which method did best."""

    weights: str  # hash of the weights the numbers hold for
    best: str  # what method="auto" means
    methods: dict[str, Calibration]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; `from_dict` is its inverse."""
        methods = {name: one.to_dict() for name, one in sorted(self.methods.items())}
        return {"schema": _SCHEMA, "weights": self.weights, "best": self.best, "methods": methods}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "CalibrationTable":
        """Raises ConfigError where the content is not of this version's form."""
        try:
            if value["schema"] != _SCHEMA:
                raise ConfigError(f"calibration of schema {value['schema']}; this version reads schema {_SCHEMA}")
            methods = {name: Calibration.from_dict(one) for name, one in value["methods"].items()}
            return cls(value["weights"], value["best"], methods)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a calibration table: {error}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "CalibrationTable":
        """Raises ConfigError where the file is missing or not a calibration table."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise ConfigError(f"calibration file {path}: {error}") from error


@dataclass(frozen=True)
class SavedCalibration:
    """A calibration made on a user's own images, and all it holds for: a small JSON file."""

    calibration: Calibration
    settings: dict[str, Any]  # `Detector.settings` it was made with; other settings give other scores
    made_from: dict[str, Any]  # rule, numbers of images, and what the threshold promises

    def check(self, settings: dict[str, Any]) -> None:
        """Raise ConfigError unless a detector's `settings` are those the calibration was made with."""
        now = json.loads(json.dumps(settings))
        differing = sorted(k for k in self.settings.keys() | now.keys() if self.settings.get(k) != now.get(k))
        if "weights" not in differing:  # the same weights under another name or at another place
            differing = [k for k in differing if k != "backbone"]
        if differing:
            was = "; ".join(f"{k} was {self.settings.get(k)!r}, is {now.get(k)!r}" for k in differing)
            raise ConfigError(
                f"the calibration was made with other settings, so its threshold means nothing here ({was}); "
                "use the same settings, or run `anomalens calibrate` again with these"
            )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError when the file cannot be written."""
        head = {"schema": _SCHEMA, "anomalens": __version__, "made_from": self.made_from, "settings": self.settings}
        write_json(path, head | {"calibration": self.calibration.to_dict()})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "SavedCalibration":
        """Raises ConfigError where the file is missing, of another version or no such calibration."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            if content["schema"] != _SCHEMA:
                raise ConfigError(f"calibration {path} of schema {content['schema']}; this version reads {_SCHEMA}")
            return cls(
                Calibration.from_dict(content["calibration"]), dict(content["settings"]), dict(content["made_from"])
            )
        except OSError as error:
            raise ConfigError(f"calibration {path}: {error.strerror or error}") from error
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ConfigError(f"{path} was not written by `anomalens calibrate` ({what})") from error


def bundled_calibration() -> CalibrationTable:
    """The table shipped with the bundled backbone."""
    with resources.as_file(resources.files("anomalens") / BUNDLED / "calibration.json") as path:
        return CalibrationTable.read(path)
