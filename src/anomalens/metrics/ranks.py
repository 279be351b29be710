"""Every threshold metric from one small table: how anomalous scores rank among normal ones.

Only thresholds at anomalous scores matter. Between two of them a lower threshold adds false positives and
nothing else, so no maximum lies there, no step of average precision does, and the ROC and PRO curves run
level. The table therefore grows with the anomalous pixels, a few per cent of all.

All functions work on the last axis K and on any leading axes, so a bootstrap is the same code on a stack.
Undefined results are NaN in here; the public functions turn them into None.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalens.metrics.arrays import Array

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """K distinct anomalous scores in descending order, and what ranks above each of them.

    Counts may be whole numbers, or floats in a weighted resample. `...` stands for any leading axes.
    """

    threshold: Array  # [K] the score; everything scoring at least this much is called anomalous
    anomalous: Array  # [..., K] anomalous entries with exactly this score
    above: Array  # [..., K] normal entries scoring more
    upto: Array  # [..., K] normal entries scoring at least as much
    normals: Array  # [...] normal entries in all
    anomalies: Array  # [...] anomalous entries in all
    share: Array  # [..., K] sum of 1/|region| over the anomalous pixels with this score; [..., 0] for images
    regions: Array  # [...] number of regions, 0 for images


def auroc(ranks: Ranks) -> Floats:
    """Area under the ROC curve: the chance that an anomalous entry outscores a normal one, ties half."""
    gain = 1.0 - (_share_of(ranks.above, ranks.normals) + _share_of(ranks.upto, ranks.normals)) / 2
    area = (ranks.anomalous * gain).sum(axis=-1) / _positive(ranks.anomalies)
    return _where_both(ranks, np.clip(area, 0.0, 1.0))


def average_precision(ranks: Ranks) -> Floats:
    """Sum over thresholds of (recall step) x precision; no interpolation."""
    found = np.cumsum(ranks.anomalous, axis=-1)
    precision = found / _positive(found + ranks.upto)
    total = (ranks.anomalous * precision).sum(axis=-1) / _positive(ranks.anomalies)
    return _where_both(ranks, np.clip(total, 0.0, 1.0))


def f1_max(ranks: Ranks) -> tuple[Floats, Floats]:
    """Largest F1 over all thresholds, and the highest threshold that reaches it."""
    if ranks.threshold.size == 0:
        undefined = np.full(np.shape(ranks.normals), np.nan)
        return undefined, undefined
    found = np.cumsum(ranks.anomalous, axis=-1)
    f1 = 2.0 * found / _positive(found + ranks.upto + np.expand_dims(ranks.anomalies, -1))
    best = f1.argmax(axis=-1)
    value = np.take_along_axis(f1, np.expand_dims(best, -1), axis=-1)[..., 0]
    return _where_both(ranks, value), _where_both(ranks, ranks.threshold[best].astype(np.float64))


def aupro(ranks: Ranks, limit: float) -> Floats:
    """Area under the per-region overlap curve up to a false-positive rate of `limit`, divided by `limit`.

    With f1 and f2 the shares of normal pixels above and at-or-above a score, the overlap gained there rises
    along a straight line from f1 to f2 and stays: its part of the area is limit - (f1+f2)/2 for f2 <= limit,
    (limit-f1)^2 / (2 (f2-f1)) when limit cuts the rise, else 0.
    """
    first, last = _share_of(ranks.above, ranks.normals), _share_of(ranks.upto, ranks.normals)
    rise = np.where(last > first, last - first, 1.0)
    cut = np.maximum(limit - first, 0.0) ** 2 / (2 * rise)
    area = np.where(last <= limit, limit - (first + last) / 2, cut)
    total = (ranks.share * area).sum(axis=-1) / (limit * _positive(ranks.regions))
    defined = (np.asarray(ranks.normals) > 0) & (np.asarray(ranks.regions) > 0)
    return np.where(defined, np.clip(total, 0.0, 1.0), np.nan)


def aupro_200(false_positive_rate: Floats, overlap: Floats, limit: float) -> float:
    """The papers' area out of their threshold sweep [200]: keep rates below `limit`, rescale them by their
    own smallest and largest to [0, 1], trapezoid rule. NaN when fewer than two different rates are kept.
    """
    kept = false_positive_rate < limit
    rate, overlap = false_positive_rate[kept], overlap[kept]
    if rate.size == 0 or rate.max() <= rate.min():
        return float("nan")
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    # Thresholds ascend, so rates descend.
    return float(np.clip(np.trapezoid(overlap[::-1], rate[::-1]), 0.0, 1.0))


def sweep_thresholds(low: float, high: float, steps: int = 200) -> Floats:
    """The papers' thresholds: low + k (high - low) / steps for k = 0 .. steps-1, in float64."""
    part = np.arange(steps, dtype=np.float64)
    if high / 2 - low / 2 > np.finfo(np.float64).max / 2:  # the range itself is beyond float64
        return low * (1 - part / steps) + high * (part / steps)
    return low + part * ((high - low) / steps)


def _share_of(count: Array, total: Array) -> Floats:
    """count / total along the last axis; 0 where the total is 0 (the caller masks that case)."""
    return np.asarray(count / _positive(np.expand_dims(total, -1)), dtype=np.float64)


def _positive(total: Array) -> Array:
    """Total as a divisor: 1 in place of 0, for results that are masked as undefined afterwards."""
    return np.where(np.asarray(total) > 0, total, 1)


def _where_both(ranks: Ranks, value: Array) -> Floats:
    """`value`, or NaN where normal or anomalous entries are missing."""
    defined = (np.asarray(ranks.normals) > 0) & (np.asarray(ranks.anomalies) > 0)
    return np.where(defined, value, np.nan)
