"""Outlines of regions: filled again they are exactly the pixels, whatever the shape."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from anomalens.images.outlines import Polygon, outlines, simplified


def filled(polygons: list[Polygon], shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centres lie inside an odd number of polygons, by counting the edges left of each."""
    inside = np.zeros(shape, int)
    for corners in polygons:
        for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
            if x0 == x1:
                inside[min(y0, y1) : max(y0, y1), x0:] += 1
    odd: npt.NDArray[np.bool_] = inside % 2 == 1
    return odd


@pytest.mark.parametrize("seed", range(20))
def test_the_outlines_of_any_region_are_its_pixels(seed: int) -> None:
    noise = np.random.default_rng(seed).random((23, 31)) < (seed + 2) / 24
    labels, count = ndimage.label(noise, np.ones((3, 3)))
    for number in range(1, count + 1):
        region = labels == number
        outer, holes = outlines(region)
        assert len(outer) == 1
        # Outside is what hangs together by edges; the frame is one of its parts.
        assert len(holes) == ndimage.label(~np.pad(region, 1))[1] - 1
        assert np.array_equal(filled([*outer, *holes], region.shape), region)
        assert np.array_equal(filled(outer, region.shape), ndimage.binary_fill_holes(region))
    assert outlines(np.zeros((3, 3), bool)) == ([], [])


def test_corners_are_those_of_the_pixels_clockwise() -> None:
    region = np.zeros((4, 5), bool)
    region[1:3, 2:5] = True
    assert outlines(region) == ([[(2, 1), (5, 1), (5, 3), (2, 3)]], [])


def test_a_simplified_outline_stays_near() -> None:
    y, x = np.mgrid[:80, :80]
    disc = (x - 40) ** 2 + (y - 40) ** 2 < 30**2
    [[corners], _] = outlines(disc)
    few = simplified(corners, 1.0)
    assert len(few) < len(corners) / 3
    assert set(few) <= set(corners)
    px, py = np.array(few, float).T
    area = (px @ np.roll(py, -1) - py @ np.roll(px, -1)) / 2
    assert abs(area / disc.sum() - 1) < 0.05
    square = [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert len(simplified(square, 100)) >= 3
