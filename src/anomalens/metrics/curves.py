"""Compute ROC, precision-recall and per-region-overlap curves, exact at their points and thinned for plots."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomalens.errors import ConfigError
from anomalens.metrics.arrays import Array, Floats
from anomalens.metrics.ranks import Ranks


@dataclass(frozen=True)
class Curve:
    """Hold n points of a curve, from the highest threshold to the lowest; empty where the curve is undefined."""

    # [n] in [0, 1]: false-positive rate, or recall.
    x: Floats
    # [n] in [0, 1]: recall, region overlap, or precision.
    y: Floats
    # [n] in units of the score: x and y are those of calling scores >= threshold anomalous; at inf, nothing is.
    threshold: Floats


def roc_curve(ranks: Ranks, points: int = 500) -> Curve:
    """Return recall over false-positive rate, from (0, 0) to (1, 1); at most `points` points."""
    if ranks.normals == 0 or ranks.anomalies == 0:
        return _empty()
    recall = np.cumsum(ranks.anomalous) / ranks.anomalies
    return _thin(*_stairs(ranks, recall), points)


def pro_curve(ranks: Ranks, points: int = 500, limit: float = 1.0) -> Curve:
    """Return mean region overlap over false-positive rate, up to `limit`; at most `points` points."""
    if ranks.normals == 0 or ranks.regions == 0:
        return _empty()
    overlap = np.minimum(np.cumsum(ranks.share) / ranks.regions, 1.0)
    rate, overlap, threshold = _stairs(ranks, overlap)
    if limit < 1.0:
        inside = int(np.searchsorted(rate, limit, side="right"))
        end = float(np.interp(limit, rate, overlap))
        # The threshold of the cut is that of the point before it: no score lies between.
        rate, overlap = np.append(rate[:inside], limit), np.append(overlap[:inside], end)
        threshold = np.append(threshold[:inside], threshold[inside - 1])
    return _thin(rate, overlap, threshold, points)


def pr_curve(ranks: Ranks, points: int = 500) -> Curve:
    """Return precision over recall, one point a threshold after (0, 1); at most `points` points."""
    if ranks.normals == 0 or ranks.anomalies == 0:
        return _empty()
    detected = np.cumsum(ranks.anomalous)
    recall = np.concatenate(([0.0], detected / ranks.anomalies))
    precision = np.concatenate(([1.0], detected / (detected + ranks.upto)))
    return _thin(recall, precision, np.concatenate(([np.inf], ranks.threshold)), points)


def _stairs(ranks: Ranks, height: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the corners of a curve over the false-positive rate: level up to a score, then up along its ties."""
    before = np.concatenate(([0.0], height[:-1]))
    x = np.stack((ranks.above, ranks.upto), axis=1).ravel() / ranks.normals
    y = np.stack((before, height), axis=1).ravel()
    score = ranks.threshold
    # Beyond the largest float lies infinity.
    with np.errstate(over="ignore"):
        beyond = np.nextafter(score, np.asarray(np.inf, score.dtype))
    threshold = np.stack((beyond, score), axis=1).ravel()
    x, y = np.concatenate(([0.0], x, [1.0])), np.concatenate(([0.0], y, [1.0]))
    return x, y, np.concatenate(([np.inf], threshold, [-np.inf]))


def _thin(x: Array, y: Array, threshold: Array, points: int) -> Curve:
    """Keep at most `points` of the points, both ends among them, evenly spread along the curve's own length."""
    if points < 2:
        raise ConfigError(f"a curve needs at least 2 points, asked for {points}")
    if x.size > points:
        length = np.concatenate(([0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))))
        wanted = np.linspace(0.0, length[-1], points)
        chosen: NDArray[np.intp] = np.unique(np.minimum(np.searchsorted(length, wanted), x.size - 1))
        chosen[0], chosen[-1] = 0, x.size - 1
        x, y, threshold = x[chosen], y[chosen], threshold[chosen]
    return Curve(x, y, threshold.astype(np.float64))


def _empty() -> Curve:
    nothing = np.zeros(0)
    return Curve(nothing, nothing, nothing)
