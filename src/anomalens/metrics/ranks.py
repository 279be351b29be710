"""Compute every threshold metric from one small table: how anomalous scores rank among normal ones.

Only thresholds at anomalous scores matter. Between two of them a lower threshold adds false positives and nothing
else, so no maximum and no step of average precision lies between, and the ROC and PRO curves run level. The table
therefore grows with the anomalous pixels, a few per cent of all.

All functions work on the last axis K and on any leading axes, so that the bootstrap runs the same code on a stack of
resamples. Undefined results are NaN; the public functions turn them into None.
"""

from dataclasses import dataclass

import numpy as np

from anomalens.metrics.arrays import Array, Floats


@dataclass(frozen=True)
class Ranks:
    """Hold K distinct anomalous scores in descending order, and how many entries rank above each of them.

    An entry is an image or a pixel. Counts may be whole numbers, or floats in a weighted resample. `...` stands for
    any leading axes.
    """

    # [K] the scores; entries that score at least this much are called anomalous.
    threshold: Array
    # [..., K] anomalous entries with exactly this score.
    anomalous: Array
    # [..., K] normal entries that score more.
    above: Array
    # [..., K] normal entries that score at least as much.
    upto: Array
    # [...] normal entries in all.
    normals: Array
    # [...] anomalous entries in all.
    anomalies: Array
    # [..., K] sum of 1/|region| over the anomalous pixels with this score; [..., 0] for images.
    share: Array
    # [...] number of regions, 0 for images.
    regions: Array


def auroc(ranks: Ranks) -> Floats:
    """Return the area under the ROC curve: the chance that an anomalous entry outscores a normal one, ties half."""
    gain = 1.0 - (_share_of(ranks.above, ranks.normals) + _share_of(ranks.upto, ranks.normals)) / 2
    area = (ranks.anomalous * gain).sum(axis=-1) / _positive(ranks.anomalies)
    return _where_both(ranks, np.clip(area, 0.0, 1.0))


def average_precision(ranks: Ranks) -> Floats:
    """Return the sum over thresholds of (recall step) x precision; no interpolation."""
    detected = np.cumsum(ranks.anomalous, axis=-1)
    precision = detected / _positive(detected + ranks.upto)
    total = (ranks.anomalous * precision).sum(axis=-1) / _positive(ranks.anomalies)
    return _where_both(ranks, np.clip(total, 0.0, 1.0))


def trapezoid_precision(ranks: Ranks) -> Floats:
    """Return the area under straight lines through the points (recall, precision) of all thresholds, from (0, 1) on.

    Along a line between two anomalous scores precision falls first, by the normal entries that lie between, to
    d / (d + above) at the same recall, and only then recall grows.
    """
    detected = np.cumsum(ranks.anomalous, axis=-1)
    before = detected - ranks.anomalous
    start = np.where((before == 0) & (ranks.above == 0), 1.0, before / _positive(before + ranks.above))
    end = detected / _positive(detected + ranks.upto)
    total = (ranks.anomalous * (start + end) / 2).sum(axis=-1) / _positive(ranks.anomalies)
    return _where_both(ranks, np.clip(total, 0.0, 1.0))


def f1_max(ranks: Ranks) -> tuple[Floats, Floats]:
    """Return the largest F1 over all thresholds, and the highest threshold that reaches it."""
    if ranks.threshold.size == 0:
        undefined = np.full(np.shape(ranks.normals), np.nan)
        return undefined, undefined
    detected = np.cumsum(ranks.anomalous, axis=-1)
    f1 = 2.0 * detected / _positive(detected + ranks.upto + np.expand_dims(ranks.anomalies, -1))
    best = f1.argmax(axis=-1)
    value = np.take_along_axis(f1, np.expand_dims(best, -1), axis=-1)[..., 0]
    return _where_both(ranks, value), _where_both(ranks, ranks.threshold[best].astype(np.float64))


def aupro(ranks: Ranks, limit: float) -> Floats:
    """Return the area under the per-region overlap curve up to a false-positive rate of `limit`, divided by `limit`.

    With f1 and f2 the shares of normal pixels above and at-or-above a score, the overlap gained at that score rises
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
    """Return the papers' area under the 200 points of their threshold sweep.

    Rates below `limit` are kept and rescaled by their own smallest and largest to [0, 1]; then the trapezoid rule.
    NaN when fewer than two different rates are kept.
    """
    kept = false_positive_rate < limit
    rate, overlap = false_positive_rate[kept], overlap[kept]
    if rate.size == 0 or rate.max() <= rate.min():
        return float("nan")
    rate = (rate - rate.min()) / (rate.max() - rate.min())
    # Thresholds ascend, so rates descend.
    return float(np.clip(np.trapezoid(overlap[::-1], rate[::-1]), 0.0, 1.0))


def sweep_thresholds(low: float, high: float, steps: int = 200) -> Floats:
    """Return the papers' thresholds: low + k (high - low) / steps for k = 0 .. steps-1, in float64."""
    part = np.arange(steps, dtype=np.float64)
    # Where the range itself is beyond float64.
    if high / 2 - low / 2 > np.finfo(np.float64).max / 2:
        return low * (1 - part / steps) + high * (part / steps)
    return low + part * ((high - low) / steps)


def _share_of(count: Array, total: Array) -> Floats:
    """Return count / total along the last axis; 0 where the total is 0 (the caller masks that case)."""
    return np.asarray(count / _positive(np.expand_dims(total, -1)), dtype=np.float64)


def _positive(total: Array) -> Array:
    """Return the total as a divisor: 1 in place of 0, for results that are masked as undefined afterwards."""
    return np.where(np.asarray(total) > 0, total, 1)


def _where_both(ranks: Ranks, value: Array) -> Floats:
    """Return `value`, or NaN where normal or anomalous entries are missing."""
    defined = (np.asarray(ranks.normals) > 0) & (np.asarray(ranks.anomalies) > 0)
    return np.where(defined, value, np.nan)
