"""How what ships with the bundled backbone is chosen."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomalens.decision.calibration import Calibration, CalibrationTable, ShippedMethod
from anomalens.decision.pooling import ScorePooling
from anomalens.errors import InputError
from anomalens_lab import calibrate
from anomalens_lab.calibrate import Judged, balanced_threshold, fit, quality, twins_in_order


def test_pooling_is_judged_by_twins() -> None:
    labels = np.array([True, False, True, False, False, False])
    assert twins_in_order(np.array([2.0, 1.0, 1.0, 1.0, 0.0, 9.0], np.float32), labels) == 0.75
    assert np.isnan(twins_in_order(np.zeros(2, np.float32), np.zeros(2, bool)))


def test_the_threshold_splits_best() -> None:
    scores, labels = np.array([0.1, 0.2, 0.3, 0.8]), np.array([False, False, True, True])
    assert 0.2 < balanced_threshold([(scores, labels)]) < 0.3
    # Where groups disagree it stands where their mean is best.
    other = np.array([0.4, 0.5, 0.9, 1.0])
    assert 0.5 < balanced_threshold([(scores, labels), (other, labels)]) < 0.8


def judged(rng: np.random.Generator, scores: str) -> Judged:
    masks = np.zeros((40, 16, 16), bool)
    masks[::2, 4:8, 4:8] = True
    maps = (0.45 + 0.02 * rng.random(masks.shape) + 0.1 * masks).astype(np.float32)
    drawn = rng.random(40, np.float32) if scores == "chance" else np.array([mask.any() for mask in masks], np.float32)
    return Judged(drawn, maps, masks)


def test_calibration_orders_its_numbers() -> None:
    rng = np.random.default_rng(0)
    scenes = judged(rng, "chance")
    shipped = fit(scenes, None, "a test")
    assert shipped.pooling.share > 0
    assert 0.47 < shipped.calibration.pixel_threshold <= 0.57
    assert shipped.calibration.heat_range[0] < 0.48 < 0.55 < shipped.calibration.heat_range[1]
    # There is nothing to gain from the map.
    assert fit(judged(rng, "truth"), judged(rng, "truth"), "a test").pooling.share == 0
    nothing = np.zeros_like(scenes.masks)
    with pytest.raises(InputError, match="twins"):
        fit(replace(scenes, masks=nothing), None, "a test")
    with pytest.raises(InputError, match="photographs"):
        fit(scenes, replace(scenes, masks=nothing), "a test")


def test_quality_is_finding_and_ranking() -> None:
    scenes = judged(np.random.default_rng(0), "truth")
    pooling = fit(scenes, None, "a test").pooling
    assert quality(scenes, pooling) == 1.0
    assert quality(replace(scenes, maps=-scenes.maps), pooling) == 0.5  # ranks all, finds nothing


def test_auto_is_the_best_of_all_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = {"anoclip": 0.8, "crane": 0.9, "winclip": 0.95}
    shipped = ShippedMethod(Calibration(0.5, 0.5, (0.0, 1.0), "a test"), ScorePooling())
    monkeypatch.setattr(calibrate, "Scenes", lambda _: [])
    monkeypatch.setattr(calibrate, "load_detector", lambda name, *_, **__: name)
    monkeypatch.setattr(calibrate, "calibrate_method", lambda name, *_: (shipped, reached[name]))
    out = tmp_path / "table.json"
    methods = {"anoclip": {"views": 1}, "crane": {}}
    qualities = calibrate.calibrate_bundled(tmp_path, methods=methods, out=out)
    # The best is calibrated a second time, at the sizes that "auto" looks at.
    assert qualities == {"anoclip": 0.8, "crane": 0.9, calibrate.AUTO: 0.9}
    table = CalibrationTable.read(out)
    assert table.best == "crane"
    assert table.auto is not None
    assert table.auto.extra_sizes == calibrate.AUTO_SIZES
    assert table.methods["anoclip"].options == {"views": 1}
    # A method calibrated on its own is not compared with what was measured before.
    calibrate.calibrate_bundled(tmp_path, methods={"winclip": {}}, out=out)
    table = CalibrationTable.read(out)
    assert (table.best, set(table.methods)) == ("crane", set(reached))
