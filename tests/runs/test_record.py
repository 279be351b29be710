"""The record of a run: one written by an earlier version lets the run go on."""

import json
from pathlib import Path
from typing import Any

import pytest

from anomalens.detection.loading import load_detector
from anomalens.errors import ConfigError
from anomalens.runs.record import read_record

# What version 0.1 wrote for `anomalens detect in --out old --tile 200 --also 224 --draft --object nut`, hashes and
# calibrated numbers left out.
EARLIER: dict[str, Any] = {
    "method": "anomalyclip",
    "backbone": "bundled",
    "options": {
        "n_ctx": 12,
        "depth": 9,
        "length": 4,
        "half_deep": False,
        "start": None,
        "taps": [-1],
        "temperature": 0.07,
        "sigma": 4.0,
        "local_weight": 4.0,
    },
    "object": "nut",
    "size": 448,
    "also": [224],
    "geometry": "squash",
    "interpolation": "bicubic",
    "tile": 200,
    "overlap": 0.25,
    "draft": True,
    "precision": "float32",
    "dtype": "float32",
    "seed": 0,
    "maps": "none",
}


def test_a_record_of_an_earlier_version_is_understood(tmp_path: Path) -> None:
    detector = load_detector("anomalyclip", tile=200, extra_sizes=(224,), fast_jpeg=True, object_name="nut")
    numbers = detector.calibration.to_dict()
    settings = detector.settings | {"calibration": numbers, "maps": "none"}
    # What belongs to the weights that ship is taken from them.
    pooling = {name: settings[name] for name in ("pooling", "top")}
    earlier = EARLIER | pooling | {name: settings[name] for name in ("weights", "learned")}
    earlier["calibration"] = numbers | pooling | {"source": "other words", "options": {"views": 1}}
    (tmp_path / "run.json").write_text(json.dumps({"settings": earlier}))
    assert read_record(tmp_path, settings)["settings"] == earlier
    with pytest.raises(ConfigError, match="settings: --tile was 200 then, 256 now"):
        read_record(tmp_path, settings | {"tile": 256})
