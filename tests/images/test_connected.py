"""Connected parts of a mask, against SciPy's."""

import numpy as np
import pytest
from scipy import ndimage

from anomalens.images.connected import find_runs


def masks() -> dict[str, np.ndarray]:
    """Return masks of many shapes: noise, blots, a spiral, single rows and columns, corners, nothing, everything."""
    rng = np.random.default_rng(0)
    blots = ndimage.gaussian_filter(rng.normal(size=(150, 210)), 4) > 0.05
    spiral = np.zeros((31, 31), bool)
    for ring in range(0, 15, 2):
        spiral[ring, ring : 31 - ring] = spiral[ring : 31 - ring, 30 - ring] = True
        spiral[30 - ring, ring : 31 - ring] = spiral[ring + 2 : 31 - ring, ring] = True
        spiral[ring + 2, ring : ring + 2] = True
    return {
        "noise": rng.random((90, 70)) < 0.4,
        "blots": blots,
        "spiral": spiral,
        "comb": np.arange(40)[None] % 2 * np.ones((9, 1)) > 0,
        "row": rng.random((1, 50)) < 0.5,
        "column": rng.random((50, 1)) < 0.5,
        "corners": np.eye(20, dtype=bool) | np.eye(20, dtype=bool)[::-1],
        "borders": np.pad(np.zeros((5, 6), bool), 1, constant_values=True),
        "nothing": np.zeros((4, 7), bool),
        "everything": np.ones((4, 7), bool),
    }


@pytest.mark.parametrize("name", masks())
def test_regions_are_those_of_scipy_with_the_same_numbers(name: str) -> None:
    mask = masks()[name]
    runs = find_runs(mask)
    labels = np.zeros(mask.shape, np.int64)
    labels[mask] = runs.of_pixels(runs.regions + 1)
    expected, count = ndimage.label(mask, np.ones((3, 3)))
    np.testing.assert_array_equal(labels, expected)
    assert runs.areas.tolist() == np.bincount(expected[mask], minlength=count + 1)[1:].tolist()
    places = ndimage.find_objects(expected)
    assert runs.boxes.tolist() == [[x.start, y.start, x.stop, y.stop] for y, x in places]


def test_runs_lie_in_order_and_hold_every_pixel() -> None:
    mask = masks()["noise"]
    runs = find_runs(mask)
    drawn = np.zeros_like(mask)
    for row, start, stop in zip(runs.rows, runs.starts, runs.stops, strict=True):
        assert not drawn[row, start:stop].any()
        drawn[row, start:stop] = True
    np.testing.assert_array_equal(drawn, mask)
    assert (np.diff(runs.rows * mask.shape[1] + runs.starts) > 0).all()
    assert runs.lengths.sum() == mask.sum()
