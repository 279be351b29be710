"""Count how many of very many values lie above thresholds, exactly and without sorting them all."""

import numpy as np

from anomalens.metrics.arrays import Array, Integers
from anomalens.metrics.floats import order_keys
from anomalens.metrics.ranks import Ranks

# A table of 0.5 MB, cheap even for a single threshold.
_FEWEST_CELLS = 1 << 16
# 32 MB.
_MOST_CELLS = 1 << 22
# Most cells then hold no threshold, and their values need no sorting.
_CELLS_PER_THRESHOLD = 4


def count_above(chunks: list[Array], thresholds: Array) -> tuple[Integers, Integers]:
    """Count the values in `chunks` that are > each threshold, and those that are >=. O(n + K log K) for most data.

    The floats between the smallest and the largest threshold are cut into cells of neighbouring floats. A value in a
    cell without a threshold is above or below each threshold as its cell is, so it is only counted; the few values
    that share a cell with a threshold are sorted.

    Args:
        chunks: arrays [n_i] of finite float32 or float64.
        thresholds: [K] ascending, no two equal, float32 if all chunks are.
    """
    if thresholds.size == 0:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing
    if any(part.dtype != np.float32 for part in (*chunks, thresholds)):
        return _from_sorted(np.sort(np.concatenate([*chunks, np.zeros(0)])), thresholds)

    keys = order_keys(thresholds)
    cells = min(_MOST_CELLS, max(_FEWEST_CELLS, thresholds.size * _CELLS_PER_THRESHOLD))
    low, high = int(keys[0]), int(keys[-1])
    shift = 0
    while (high >> shift) - (low >> shift) >= cells:
        shift += 1
    # Cell 0 holds all below the first threshold's cell, the last all above the last threshold's.
    first, last = (low >> shift) - 1, (high >> shift) - (low >> shift) + 2
    cell = (keys >> shift).astype(np.int64) - first
    shared = np.zeros(last + 1, np.bool_)
    shared[cell] = True

    alone = np.zeros(last + 1, np.int64)
    close = [np.zeros(0, np.float32)]
    for chunk in chunks:
        place = (order_keys(chunk) >> shift).astype(np.int64)
        place -= first
        np.clip(place, 0, last, out=place)
        np.add.at(alone, place, 1)
        close.append(chunk[shared.take(place)])
    alone[shared] = 0

    from_cell = np.cumsum(alone[::-1])[::-1]
    above, upto = _from_sorted(np.sort(np.concatenate(close)), thresholds)
    return above + from_cell[cell], upto + from_cell[cell]


def rank_scores(normal: Array, anomalous: Array) -> Ranks:
    """Return the metrics' table of flat score arrays, one of normal and one of anomalous entries; no regions."""
    threshold, count = np.unique(anomalous, return_counts=True)
    above, upto = count_above([normal], threshold)
    return Ranks(
        threshold=threshold[::-1],
        anomalous=count[::-1],
        above=above[::-1],
        upto=upto[::-1],
        normals=np.asarray(normal.size),
        anomalies=np.asarray(anomalous.size),
        share=np.zeros(0),
        regions=np.asarray(0),
    )


def _from_sorted(ascending: Array, thresholds: Array) -> tuple[Integers, Integers]:
    above = ascending.size - np.searchsorted(ascending, thresholds, side="right")
    upto = ascending.size - np.searchsorted(ascending, thresholds, side="left")
    return above.astype(np.int64), upto.astype(np.int64)
