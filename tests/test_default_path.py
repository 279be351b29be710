"""The default path keeps its numbers: score and map of one picture, as they were when they were last renewed.

To renew them on purpose: python tests/test_default_path.py
"""

from pathlib import Path

import numpy as np

from anomalens import load_detector

STORED = Path(__file__).parent / "golden" / "default_path.npz"


def picture() -> np.ndarray:
    """Return a striped sheet with a dark spot, the same on every machine."""
    rows, columns = np.mgrid[0:256, 0:256]
    sheet = 150 + 40 * np.sin(columns / 6) + 10 * np.cos(rows / 11)
    sheet[(rows - 90) ** 2 + (columns - 170) ** 2 < 18**2] = 30
    return np.repeat(np.round(sheet).astype(np.uint8)[..., None], 3, axis=2)


def test_score_and_map_of_the_default_path_are_those_stored() -> None:
    stored, prediction = np.load(STORED), load_detector().predict(picture())
    assert prediction.method == str(stored["method"])
    assert abs(prediction.score - float(stored["score"])) < 1e-5
    assert abs((prediction.method_score or 0) - float(stored["method_score"])) < 1e-5
    assert prediction.threshold == float(stored["threshold"])
    # Every eighth row and column of the map: small to store, and nothing moves a map in between alone.
    assert np.abs(prediction.anomaly_map[::8, ::8] - stored["map"]).max() < 1e-5
    y, x = np.unravel_index(int(prediction.anomaly_map.argmax()), prediction.anomaly_map.shape)
    side = 256 / prediction.anomaly_map.shape[0]
    assert np.hypot(y * side - 90, x * side - 170) < 30, "the spot is the hottest place"


if __name__ == "__main__":
    current = load_detector().predict(picture())
    assert current.method_score is not None
    np.savez_compressed(
        STORED,
        method=current.method,
        score=current.score,
        method_score=current.method_score,
        threshold=current.threshold,
        map=current.anomaly_map[::8, ::8],
    )
