"""Find the connected parts of a mask by its runs: the unbroken stretches of set pixels in its rows."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


class Runs(NamedTuple):
    """Describe R runs of a mask [H, W], from the top row to the bottom one, from left to right.

    Run i covers the columns starts[i] <= x < stops[i] of the row rows[i], and belongs to the region regions[i]. Regions
    (0, 1, ...) are numbered in the order of their first run; corners connect.
    """

    rows: Integers
    starts: Integers
    stops: Integers
    regions: Integers

    @property
    def lengths(self) -> Integers:
        """Return the pixels [R] of every run."""
        return self.stops - self.starts

    @property
    def areas(self) -> Integers:
        """Return the pixels of every region."""
        return np.bincount(self.regions, self.lengths).astype(np.int64)

    @property
    def boxes(self) -> Integers:
        """Return a rectangle for every region: left, top, right, bottom, the last two one pixel further."""
        count = int(self.regions.max(initial=-1)) + 1
        boxes = np.empty((count, 4), np.int64)
        boxes[:, :2] = np.iinfo(np.int64).max
        boxes[:, 2:] = 0
        for side, values, furthest in (
            (0, self.starts, np.minimum),
            (1, self.rows, np.minimum),
            (2, self.stops, np.maximum),
            (3, self.rows + 1, np.maximum),
        ):
            furthest.at(boxes[:, side], self.regions, values)
        return boxes

    def of_pixels(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Repeat one value a run for each of its pixels: `mask[mask] = runs.of_pixels(values)` sets them."""
        return np.repeat(values, self.lengths)


def find_runs(mask: npt.NDArray[np.bool_]) -> Runs:
    """Find the runs of a mask [H, W] and the 8-connected region that each belongs to.

    The time grows with the pixels, the memory with the runs.
    """
    # Two columns more than the mask: between the runs of neighbouring rows there always is a place.
    wide = mask.shape[1] + 2
    edges = np.flatnonzero(np.diff(np.pad(mask, ((0, 0), (1, 2))), axis=1))
    firsts, ends = edges[::2], edges[1::2]
    # Runs touch where they lie in neighbouring rows and neither ends more than a corner before the other begins.
    begin = np.searchsorted(ends, firsts + wide, side="left")
    end = np.searchsorted(firsts, ends + wide, side="right")
    touching = np.maximum(end - begin, 0)
    upper = np.repeat(np.arange(firsts.size), touching)
    lower = np.arange(upper.size) + np.repeat(begin - np.cumsum(touching) + touching, touching)
    regions = np.unique(_smallest_connected(firsts.size, upper, lower), return_inverse=True)[1]
    rows = firsts // wide
    return Runs(rows, firsts - rows * wide, ends - rows * wide, regions.reshape(-1).astype(np.int64))


def _smallest_connected(count: int, upper: Integers, lower: Integers) -> Integers:
    """Return for each of `count` nodes the smallest that it is connected with by the pairs (upper[i], lower[i])."""
    smallest = np.arange(count)
    while True:
        pairs = np.sort(np.stack((smallest[upper], smallest[lower])), axis=0)
        pairs = pairs[:, pairs[0] != pairs[1]]
        if not pairs.size:
            return smallest
        np.minimum.at(smallest, pairs[1], pairs[0])
        # Every node then follows the chain of smaller ones to its end.
        while not np.array_equal(further := smallest[smallest], smallest):
            smallest = further
