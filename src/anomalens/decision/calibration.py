"""Keep thresholds and the heatmap's fixed scale as data beside the weights.

Raw scores are never changed by any of this; a threshold is a number that says where it came from.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from typing import Any

from anomalens._version import __version__
from anomalens.decision.conformal import p_value
from anomalens.decision.pooling import ScorePooling
from anomalens.errors import ConfigError, one_line
from anomalens.files import json_ready, write_json
from anomalens.images.preprocessing import Preprocess
from anomalens.options import differences
from anomalens.typed_values import build, checked_value
from anomalens.untrusted import read_bytes, read_json

_SCHEMA = 1
_POOLING = ("pooling", "top")
"""Keys of score pooling, which files keep beside the numbers of a calibration."""


@dataclass(frozen=True)
class Calibration:
    """Turn a method's numbers on one backbone into decisions and colours.

    Raises ConfigError where a number is not finite or out of its range.
    """

    # Image level: an image is anomalous where its score is above this.
    threshold: float
    # Pixel level: a pixel is in the mask where the map is above this.
    pixel_threshold: float
    # Map values of the coldest and the hottest colour, the same for all images.
    heat_range: tuple[float, float]
    # Where the numbers come from, in words.
    source: str
    # Scores of normal images, ascending: what p-values are counted in.
    normal_scores: tuple[float, ...] = ()
    # The same words for images that are cut into tiles; None where tiles make no difference.
    tiled_source: str | None = None

    def __post_init__(self) -> None:
        low, high = self.heat_range
        if not low < high:
            raise ConfigError(f"heat range {self.heat_range} must rise from cold to hot")
        if not (math.isfinite(self.threshold) and math.isfinite(self.pixel_threshold)):
            raise ConfigError(f"thresholds must be finite, found {self.threshold} and {self.pixel_threshold}")
        if list(self.normal_scores) != sorted(self.normal_scores) or not all(map(math.isfinite, self.normal_scores)):
            raise ConfigError("normal scores must be finite and in ascending order")

    @classmethod
    def neutral(cls, heat_range: tuple[float, float]) -> "Calibration":
        """Return the point where normal and abnormal prompts are equally near, for weights nobody calibrated."""
        low, high = heat_range
        words = (
            "neutral point between normal and abnormal prompts, not calibrated for this backbone: scores rank images, "
            "labels mean little before `anomalens calibrate`"
        )
        return cls(0.5, (low + high) / 2, (low, high), words)

    def used_with(self, *deviations: str) -> "Calibration":
        """Return the same numbers, with a source that names the settings they were not made with ("size=64")."""
        if not deviations:
            return self
        return replace(self, source=f"{self.source}; not made for {', '.join(deviations)}")

    def override(self, threshold: float | None, pixel_threshold: float | None) -> "Calibration":
        """Return the same with the user's own thresholds where they are not None; the source then says so."""
        changed = self
        if threshold is not None:
            changed = replace(changed, threshold=threshold, source="given by the user", tiled_source=None)
        if pixel_threshold is not None:
            changed = replace(changed, pixel_threshold=pixel_threshold)
        return changed

    def words(self, *, tiled: bool) -> str:
        """Say where the numbers come from, for an image that was cut into tiles or not."""
        return self.tiled_source if tiled and self.tiled_source else self.source

    def p_value(self, score: float) -> float | None:
        """Return how rare so high a score is among normal images, in (0, 1]; None without scores of normal images."""
        return p_value(self.normal_scores, score) if self.normal_scores else None

    @property
    def score_scale(self) -> float:
        """Return the difference of scores that counts as large: from ordinary normal images to the threshold.

        Without scores of normal images it is a quarter of the heat range, in whose units scores then are.
        """
        low, high = self.heat_range
        if not self.normal_scores:
            return (high - low) / 4
        ordinary = self.normal_scores[len(self.normal_scores) // 2]
        return max(self.threshold - ordinary, 1e-6 * (high - low))

    def to_dict(self) -> dict[str, Any]:
        """Return the calibration JSON-ready; `from_dict` is the inverse."""
        content = {**asdict(self), "heat_range": list(self.heat_range), "normal_scores": list(self.normal_scores)}
        if self.tiled_source is None:
            del content["tiled_source"]
        return content

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Calibration":
        """Read what `to_dict` gave, also that of version 0.1. Raises ConfigError naming what is missing or unknown."""
        try:
            own = {name: part for name, part in value.items() if name not in (*_POOLING, "options", "extra_sizes")}
            read = build(cls, own)
        except (AttributeError, ConfigError) as error:
            raise ConfigError(f"not a calibration: {one_line(error)}") from error
        low, high = map(float, read.heat_range)
        return replace(read, heat_range=(low, high), normal_scores=tuple(map(float, read.normal_scores)))


@dataclass(frozen=True)
class ShippedMethod:
    """Hold what is shipped for a method on a set of weights: thresholds, score pooling, and the options they fit."""

    calibration: Calibration
    pooling: ScorePooling = ScorePooling()
    options: Mapping[str, Any] = field(default_factory=dict)
    # Sides in pixels at which images are seen too.
    extra_sizes: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the entry JSON-ready; `from_dict` is the inverse."""
        pooling = {"pooling": self.pooling.share, "top": self.pooling.top}
        sizes = {"extra_sizes": list(self.extra_sizes)} if self.extra_sizes else {}
        return {**self.calibration.to_dict(), **pooling, "options": dict(self.options), **sizes}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ShippedMethod":
        """Raise ConfigError naming what is missing or unknown."""
        calibration = Calibration.from_dict(value)
        options = checked_value("options", value.get("options", {}), dict[str, Any])
        sizes = checked_value("extra_sizes", value.get("extra_sizes", ()), tuple[int, ...])
        return cls(calibration, pooling_from_dict(value), options, sizes)


def pooling_from_dict(value: Mapping[str, Any]) -> ScorePooling:
    """Read the score pooling that a file keeps beside a calibration; none where it keeps none. Raises ConfigError."""
    parts = {"share": value.get("pooling", 0.0), "top": value.get("top", 0.01)}
    return build(ScorePooling, parts, "score pooling")


@dataclass(frozen=True)
class ShippedGraph:
    """Describe a graph that is shipped with a set of weights: its image tower and a method, without PyTorch.

    Raises ConfigError where a value is of another type.
    """

    method: str
    # All options of the method, JSON-ready.
    options: Mapping[str, Any]
    # `Identity.learned`, the hash of what the method has learned.
    learned: str
    # How images are prepared, at the size that is preferred.
    preprocess: Preprocess
    # sha256 of the files it is made of, by their names in the folder of the weights.
    sha256: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry JSON-ready; `from_dict` is the inverse."""
        return dict(json_ready(asdict(self)))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "ShippedGraph":
        """Raise ConfigError naming what is missing or unknown."""
        return build(cls, value, "graph")


@dataclass(frozen=True)
class CalibrationTable:
    """Hold what is shipped for one set of weights: an entry a method, and which method did best."""

    # Hash of the weights that the numbers hold for.
    weights: str
    # What method="auto" means.
    best: str
    methods: dict[str, ShippedMethod]
    # How the best method is used where none is named; None: as where it is named.
    auto: ShippedMethod | None = None
    # Graphs by the methods that they compute; all others need PyTorch.
    graphs: dict[str, ShippedGraph] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the table JSON-ready; `from_dict` is the inverse."""
        methods = {name: entry.to_dict() for name, entry in sorted(self.methods.items())}
        auto = {"auto": self.auto.to_dict()} if self.auto else {}
        graphs = {name: graph.to_dict() for name, graph in sorted(self.graphs.items())}
        return {
            "schema": _SCHEMA,
            "weights": self.weights,
            "best": self.best,
            **auto,
            "graphs": graphs,
            "methods": methods,
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "CalibrationTable":
        """Raise ConfigError where the content is not of this version's form."""
        try:
            if value["schema"] != _SCHEMA:
                raise ConfigError(f"calibration of schema {value['schema']}; this version reads schema {_SCHEMA}")
            methods = {name: ShippedMethod.from_dict(entry) for name, entry in value["methods"].items()}
            auto = ShippedMethod.from_dict(value["auto"]) if "auto" in value else None
            graphs = {name: ShippedGraph.from_dict(entry) for name, entry in value["graphs"].items()}
            return cls(value["weights"], value["best"], methods, auto, graphs)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"not a calibration table: {one_line(error)}") from error

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "CalibrationTable":
        """Read a file. Raises ConfigError where it is missing or not a calibration table."""
        return cls.from_dict(read_json(path, named="calibration file"))


@dataclass(frozen=True)
class SavedCalibration:
    """Hold a calibration made on a user's own images, and all it holds for: a small JSON file."""

    calibration: Calibration
    # `Detector.settings` it was made with; other settings give other scores.
    settings: dict[str, Any]
    # Rule, numbers of images, and what the threshold promises.
    made_from: dict[str, Any]
    # Why images were left out, a line each; not part of the file.
    left_out: tuple[str, ...] = ()

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raise ConfigError unless a detector's `settings` are those the calibration was made with."""
        changes = differences(self.settings, settings)
        if "weights" not in changes:
            # The same weights under another name or at another place.
            changes.pop("backbone", None)
        if changes:
            raise ConfigError(
                f"the calibration was made with other settings, so its threshold means nothing here "
                f"({'; '.join(changes.values())}); use the same settings, or run `anomalens calibrate` again with these"
            )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the file, atomically. Raises OSError when it cannot be written."""
        head = {"schema": _SCHEMA, "anomalens": __version__, "made_from": self.made_from, "settings": self.settings}
        write_json(path, head | {"calibration": self.calibration.to_dict()})

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "SavedCalibration":
        """Read a file. Raises ConfigError where it is missing, of another version or no such calibration."""
        raw = read_bytes(path, named="calibration")
        try:
            content = read_json(raw, named="its content")
            if content["schema"] != _SCHEMA:
                raise ConfigError(f"it is of schema {content['schema']!r:.40}; this version reads {_SCHEMA}")
            settings, made_from = (
                checked_value(name, content[name], dict[str, Any]) for name in ("settings", "made_from")
            )
            return cls(Calibration.from_dict(content["calibration"]), settings, made_from)
        except (KeyError, TypeError, ConfigError) as error:
            raise ConfigError(f"{path} was not written by `anomalens calibrate` ({one_line(error)})") from error


def bundled_calibration() -> CalibrationTable:
    """Return the table shipped with the bundled backbone."""
    with resources.as_file(resources.files("anomalens") / "bundled" / "calibration.json") as path:
        return CalibrationTable.read(path)
