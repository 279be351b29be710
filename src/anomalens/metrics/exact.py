"""Keep all scores, for the exact mode; they are ranked when a number is asked for."""

import numpy as np

from anomalens.metrics.arrays import Array, Floats, Integers
from anomalens.metrics.counting import count_above
from anomalens.metrics.floats import round_down
from anomalens.metrics.ranks import Ranks
from anomalens.metrics.regions import UNITS, deal_units


class ExactScores:
    """Hold every score as it came: 4 bytes per normal pixel, 12 per anomalous one (8 and 16 for float64 maps)."""

    def __init__(self) -> None:
        # Chunks, because growing one array by one map at a time would copy it each time. None is ever changed,
        # so merged accumulators may share them.
        self._normal: list[Array] = []
        self._anomalous: list[Array] = []
        # Region weight of each anomalous pixel.
        self._units: list[Integers] = []
        self.normals = 0
        self.anomalies = 0

    def add(self, scores: Array, positions: Integers, region: Integers, sizes: Integers) -> None:
        """Add one map, flat, with its anomalous positions and their regions."""
        if positions.size:
            normal = np.ones(scores.size, np.bool_)
            normal[positions] = False
            self._normal.append(scores[normal])
            anomalous = scores[positions]
            order, units = deal_units(anomalous, region, sizes)
            self._anomalous.append(anomalous[order])
            self._units.append(units)
        elif scores.size:
            self._normal.append(scores.copy())
        self.normals += scores.size - positions.size
        self.anomalies += positions.size

    def merge(self, other: "ExactScores") -> None:
        """Add everything `other` holds; `other` stays as it is."""
        self._normal += other._normal
        self._anomalous += other._anomalous
        self._units += other._units
        self.normals += other.normals
        self.anomalies += other.anomalies

    def ranks(self, regions: int) -> Ranks:
        """Return the table of all metrics."""
        anomalous, units = self._ascending()
        starts = np.flatnonzero(np.append(True, anomalous[1:] != anomalous[:-1])[: anomalous.size])
        threshold = anomalous[starts]
        above, upto = count_above(self._normal, threshold)
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

    def above(self, threshold: Floats) -> tuple[Integers, Floats]:
        """Return the normal pixels, and the region weight, that score strictly more than each threshold."""
        anomalous, units = self._ascending()
        below = np.append(0, np.cumsum(units))
        share = (below[-1] - below[np.searchsorted(anomalous, threshold, side="right")]) / UNITS
        single = all(chunk.dtype == np.float32 for chunk in self._normal)
        distinct, place = np.unique(round_down(threshold) if single else threshold, return_inverse=True)
        return count_above(self._normal, distinct)[0][place], share

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest score of all pixels; at least one pixel must have been added."""
        chunks = [chunk for chunk in (*self._normal, *self._anomalous) if chunk.size]
        return float(min(chunk.min() for chunk in chunks)), float(max(chunk.max() for chunk in chunks))

    def _ascending(self) -> tuple[Array, Integers]:
        """Return the anomalous scores in ascending order, and their region weights."""
        scores = np.concatenate([*self._anomalous, np.zeros(0, np.float32)])
        units = np.concatenate([*self._units, np.zeros(0, np.int64)])
        order = np.argsort(scores)
        return scores[order], units[order]
