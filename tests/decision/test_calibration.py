"""Thresholds and scales as data."""

import json
from pathlib import Path

import pytest

from anomalens.backbones.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.decision.calibration import (
    Calibration,
    CalibrationTable,
    ShippedGraph,
    ShippedMethod,
    bundled_calibration,
)
from anomalens.decision.pooling import ScorePooling
from anomalens.errors import ConfigError
from anomalens.images.preprocessing import Preprocess

ONE = Calibration(0.51, 0.6, (0.4, 0.8), "held-out scenes")
SHIPPED = ShippedMethod(ONE, ScorePooling(0.25, top=0.02), {"views": 1})


def test_round_trip(tmp_path: Path) -> None:
    preprocess = Preprocess(64, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), multiple=16)
    graph = ShippedGraph("anoclip", {"views": 1, "taps": [-1]}, "123", preprocess, {"anoclip.onnx": "456"})
    table = CalibrationTable("abc", "anoclip", {"anoclip": SHIPPED}, SHIPPED, {"anoclip": graph})
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(table.to_dict()))
    assert CalibrationTable.read(path) == table


def test_a_number_of_the_user_says_so() -> None:
    assert ONE.override(None, None) is ONE
    overridden = ONE.override(0.7, None)
    assert (overridden.threshold, overridden.pixel_threshold, overridden.source) == (0.7, 0.6, "given by the user")
    assert ONE.override(None, 0.9).pixel_threshold == 0.9


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"heat_range": [0.5, 0.5]}, "must rise"),
        ({"heat_range": [0.5]}, "not a calibration"),
        ({"pooling": 2.0}, "share 2.0"),
        ({"top": 0.0}, "top"),
        ({"threshold": float("nan")}, "finite"),
        ({"pixel_threshold": float("inf")}, "finite"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_bad_entries_are_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        ShippedMethod.from_dict({**SHIPPED.to_dict(), **change})


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(ConfigError, match=r"c\.json"):
        CalibrationTable.read(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match=r"c\.json"):
        CalibrationTable.read(path)
    path.write_text('{"schema": 99, "weights": "", "best": "", "methods": {}}')
    with pytest.raises(ConfigError, match="schema 99"):
        CalibrationTable.read(path)


def test_the_shipped_table_names_a_method_it_knows() -> None:
    table = bundled_calibration()
    assert table.best in table.methods
    assert table.weights == read_bundle_info(BUNDLED_FILE).sha256
