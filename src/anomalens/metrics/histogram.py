"""Count scores in 65,536 bins over the floats' own order, as narrow as the scores allow, for the histogram mode."""

import numpy as np

from anomalens.metrics.arrays import Array, Floats, Integers
from anomalens.metrics.floats import key_values, order_keys, round_down
from anomalens.metrics.ranks import Ranks
from anomalens.metrics.regions import UNITS, deal_units

BINS = 1 << 16


class OrderedHistogram:
    """Count float32 scores in 65,536 bins. Memory: 1.5 MB, whatever the number and size of the images.

    A score's key is an integer in the floats' own order (see `order_keys`). A bin is `key >> shift`, and
    `shift` is the smallest that fits all keys seen into 65,536 bins: 0, one float a bin, when scores lie close
    together; 16, the top 16 bits of the key, at the widest. When a wider range arrives, neighbouring bins are
    added together, so the state depends only on what was added, not on the order. Bins sit in a ring at
    `bin mod 65,536`: no offset has to be moved.
    """

    def __init__(self) -> None:
        # log2 of the floats in one bin.
        self._shift = 0
        # Smallest and largest key seen.
        self._range: tuple[int, int] | None = None
        # [3, BINS]: all pixels, the anomalous ones, and region weight, in ring order.
        self._rings = np.zeros((3, BINS), np.int64)
        self.normals = 0
        self.anomalies = 0

    def add(self, scores: Array, positions: Integers, region: Integers, sizes: Integers) -> None:
        """Add one map, flat, with its anomalous positions and their regions. Refuses what float32 cannot hold."""
        if scores.size == 0:
            return
        keys = order_keys(scores)
        self._widen(int(keys.min()), int(keys.max()))
        # The cast takes the bin modulo 65,536.
        slots = (keys >> self._shift).astype(np.uint16)
        self._rings[0] += np.bincount(slots, minlength=BINS)
        if positions.size:
            anomalous = keys[positions] >> self._shift
            order, units = deal_units(anomalous, region, sizes)
            slots = anomalous[order].astype(np.uint16)
            self._rings[1] += np.bincount(slots, minlength=BINS)
            np.add.at(self._rings[2], slots, units)
        self.normals += scores.size - positions.size
        self.anomalies += positions.size

    def merge(self, other: "OrderedHistogram") -> None:
        """Add everything `other` holds; `other` stays as it is."""
        if other._range is None:
            return
        self._widen(*other._range)
        self._rings += other._at_shift(self._shift)
        self.normals += other.normals
        self.anomalies += other.anomalies

    def ranks(self, regions: int) -> Ranks:
        """Return the table of all metrics, one row a bin with anomalous pixels.

        A row's threshold is the bin's lower end; for the lowest bin, the smallest score itself.
        """
        bins, normal, anomalous, units = self.descending()
        upto = np.cumsum(normal)
        rows = np.flatnonzero(anomalous)
        return Ranks(
            threshold=key_values(np.maximum(bins[rows] << self._shift, self._ends()[0])),
            anomalous=anomalous[rows],
            above=upto[rows] - normal[rows],
            upto=upto[rows],
            normals=np.asarray(self.normals),
            anomalies=np.asarray(self.anomalies),
            share=units[rows] / UNITS,
            regions=np.asarray(regions),
        )

    def above(self, threshold: Floats) -> tuple[Integers, Floats]:
        """Return the normal pixels, and the region weight, that score strictly more than each threshold.

        A threshold inside a bin acts as one at the bin's upper end, so the pair is a true point of the curve, at a
        threshold less than one bin away. (Dividing the bin instead would spread scores that are all equal, such as a
        background of zeros.)
        """
        bins, normal, _, units = self.descending()
        lowest, highest = self.extremes()
        keys = order_keys(round_down(np.clip(threshold, lowest, highest)))
        # Bins descend by one.
        row = bins[0] - (keys >> self._shift)
        row = np.where(threshold < lowest, bins.size, row)
        normal_above = np.append(0, np.cumsum(normal))[row]
        return normal_above, np.append(0, np.cumsum(units))[row] / UNITS

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest score of all pixels, exact; at least one pixel must have been added."""
        low, high = key_values(np.array(self._ends()))
        return float(low), float(high)

    def to_arrays(self) -> dict[str, Integers]:
        """Return all that it holds as arrays of whole numbers, for a file; `from_arrays` reads them."""
        low, high = self._range or (1, 0)
        numbers = np.array([self._shift, low, high, self.normals, self.anomalies], np.int64)
        return {"rings": self._rings, "numbers": numbers}

    @classmethod
    def from_arrays(cls, rings: Integers, numbers: Integers) -> "OrderedHistogram":
        """Return the histogram that `to_arrays` was asked of."""
        histogram = cls()
        shift, low, high, histogram.normals, histogram.anomalies = map(int, numbers)
        histogram._shift, histogram._range = shift, (low, high) if low <= high else None
        histogram._rings = rings
        return histogram

    def empty_like(self) -> "OrderedHistogram":
        """Return a histogram without counts and with the same bins, as long as it counts within the same range."""
        histogram = OrderedHistogram()
        if self._range is not None:
            histogram._widen(*self._range)
        return histogram

    def descending(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Return the bins in use from the highest down: number, normal pixels, anomalous pixels, region weight."""
        bins = self._bins()[::-1]
        every, anomalous, units = self._rings[:, bins % BINS]
        return bins, every - anomalous, anomalous, units

    def _ends(self) -> tuple[int, int]:
        """Return the smallest and the largest key, (0, 0) before the first."""
        return self._range or (0, 0)

    def _widen(self, low: int, high: int) -> None:
        """Make room for keys from `low` to `high`, adding neighbouring bins together as often as needed."""
        if self._range is not None:
            low, high = min(low, self._range[0]), max(high, self._range[1])
        shift = self._shift
        while (high >> shift) - (low >> shift) >= BINS:
            shift += 1
        self._rings = self._at_shift(shift)
        self._shift, self._range = shift, (low, high)

    def _at_shift(self, shift: int) -> Integers:
        """Return the counts [3, BINS] in bins of `2^shift` floats, which are no narrower than the present ones."""
        if shift == self._shift:
            return self._rings
        bins = self._bins()
        coarse = np.zeros_like(self._rings)
        for target, counts in zip(coarse, self._rings[:, bins % BINS], strict=True):
            np.add.at(target, (bins >> (shift - self._shift)) % BINS, counts)
        return coarse

    def _bins(self) -> Integers:
        """Return the numbers of the bins in use, ascending: from that of the smallest key to that of the largest."""
        if self._range is None:
            return np.zeros(0, np.int64)
        low, high = self._range
        return np.arange(low >> self._shift, (high >> self._shift) + 1)
