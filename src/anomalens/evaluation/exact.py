"""Backend of the exact mode: all scores are kept, and ranked once when a number is asked for."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalens.evaluation import ranks as table
from anomalens.evaluation.arrays import Array
from anomalens.evaluation.ranks import Ranks
from anomalens.evaluation.regions import UNITS, deal_units


class ExactScores:
    """Every score, as it came: 4 bytes per normal pixel, 12 per anomalous one (8 and 16 for float64 maps)."""

    def __init__(self) -> None:
        # Chunks, because growing one array by one map at a time would copy it each time.
        self._normal: list[Array] = []
        self._anomalous: list[Array] = []
        self._units: list[NDArray[np.int64]] = []  # region weight of each anomalous pixel
        self._folded = False  # one ascending array each
        self.normals = 0
        self.anomalies = 0

    def add(
        self, scores: Array, positions: NDArray[np.intp], region: NDArray[np.int64], sizes: NDArray[np.int64]
    ) -> None:
        """Add one map, flat, with its anomalous positions and their regions."""
        if positions.size:
            normal = np.ones(scores.size, np.bool_)
            normal[positions] = False
            self._normal.append(scores[normal])
            found = scores[positions]
            order, units = deal_units(found, region, sizes)
            self._anomalous.append(found[order])
            self._units.append(units)
        else:
            self._normal.append(scores.copy())
        self._folded = False
        self.normals += scores.size - positions.size
        self.anomalies += positions.size

    def merge(self, other: "ExactScores") -> None:
        """Add everything `other` holds; `other` stays as it is."""
        self._folded = False
        self._normal += other._normal
        self._anomalous += other._anomalous
        self._units += other._units
        self.normals += other.normals
        self.anomalies += other.anomalies

    def ranks(self, regions: int) -> Ranks:
        """The table of all metrics. O(n log n) in the normal pixels."""
        normal, anomalous, units = self._sorted()
        starts = _group_starts(anomalous)
        threshold = anomalous[starts]
        above, upto = table.count_from(normal, threshold)
        return Ranks(
            threshold=threshold[::-1],
            anomalous=np.diff(starts, append=anomalous.size)[::-1],
            above=above[::-1],
            upto=upto[::-1],
            normals=np.asarray(self.normals),
            anomalies=np.asarray(self.anomalies),
            share=np.add.reduceat(units, starts)[::-1] / UNITS if starts.size else np.zeros(0),
            regions=np.asarray(regions),
        )

    def above(self, threshold: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Normal pixels, and region weight, scoring strictly more than each threshold."""
        normal, anomalous, units = self._sorted()
        below = np.concatenate(([0], np.cumsum(units)))
        share = (below[-1] - below[np.searchsorted(anomalous, threshold, side="right")]) / UNITS
        return normal.size - np.searchsorted(normal, threshold, side="right"), share

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest score of all pixels; at least one pixel must have been added."""
        normal, anomalous, _ = self._sorted()
        ends = [end for part in (normal, anomalous) if part.size for end in (part[0], part[-1])]
        return float(min(ends)), float(max(ends))

    def _sorted(self) -> tuple[Array, Array, NDArray[np.int64]]:
        """Fold the chunks into one ascending array each; a second call finds them folded."""
        if not self._folded:
            empty = np.zeros(0, np.float32)
            normal = np.concatenate([*self._normal, empty])
            normal.sort()
            anomalous = np.concatenate([*self._anomalous, empty])
            units = np.concatenate([*self._units, np.zeros(0, np.int64)])
            order = np.argsort(anomalous)
            self._normal, self._anomalous, self._units = [normal], [anomalous[order]], [units[order]]
            self._folded = True
        return self._normal[0], self._anomalous[0], self._units[0]


def _group_starts(ascending: NDArray[Any]) -> NDArray[np.intp]:
    """Where each run of equal values begins."""
    if ascending.size == 0:
        return np.zeros(0, np.intp)
    return np.flatnonzero(np.concatenate(([True], ascending[1:] != ascending[:-1])))
