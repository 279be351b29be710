"""The metrics once more, as slowly and obviously as their definitions read. Nothing here is shared with the package."""

import itertools
import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Value = TypeVar("Value")
Array = NDArray[Any]
Regions = list[list[tuple[int, int]]]


def known(value: Value | None) -> Value:
    """Return a value that is defined."""
    assert value is not None
    return value


def regions_of(mask: Array) -> Regions:
    """Return 8-connected regions of a mask as lists of (row, column), by flooding."""
    left = {tuple(place) for place in np.argwhere(mask)}
    regions = []
    while left:
        region, frontier = [], [min(left)]
        left.remove(frontier[0])
        while frontier:
            row, column = frontier.pop()
            region.append((row, column))
            for near in [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]:
                if near in left:
                    left.remove(near)
                    frontier.append(near)
        regions.append(region)
    return regions


def overlap_and_rate(maps: Any, masks: Any, positive: Any) -> tuple[float, float]:
    """Mean region overlap and false-positive rate of `positive(score)` over all images."""
    overlaps, false, normal = [], 0, 0
    for scores, mask in zip(maps, masks, strict=True):
        overlaps += [np.mean([positive(scores[place]) for place in region]) for region in regions_of(mask)]
        false += sum(bool(positive(score)) for score in scores[~mask])
        normal += int((~mask).sum())
    return np.mean(overlaps), false / normal


def all_scores(maps: Any) -> list[float]:
    return sorted({float(score) for scores in maps for score in scores.ravel()}, reverse=True)


def aupro_by_thresholds(maps: Any, masks: Any, limit: float) -> float:
    """Area under the straight lines through every threshold's point, cut at `limit`."""
    points = [(0.0, 0.0)]
    for threshold in all_scores(maps):
        overlap, rate = overlap_and_rate(maps, masks, lambda score, t=threshold: score >= t)
        points.append((rate, overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def aupro_closed_form(maps: Any, masks: Any, limit: float) -> float:
    """Return the sum over anomalous pixels that the fast code rests on, pixel by pixel."""
    normal = np.concatenate([scores[~mask] for scores, mask in zip(maps, masks, strict=True)])
    total, count = 0.0, 0
    for scores, mask in zip(maps, masks, strict=True):
        for region in regions_of(mask):
            count += 1
            for place in region:
                first, last = np.mean(normal > scores[place]), np.mean(normal >= scores[place])
                if last <= limit:
                    part = limit - (first + last) / 2
                elif first < limit:
                    part = (limit - first) ** 2 / (2 * (last - first))
                else:
                    part = 0.0
                total += part / len(region)
    return total / (limit * count)


def aupro_200(maps: Any, masks: Any, limit: float) -> float | None:
    """Return the papers' sweep; None where nothing can be rescaled."""
    low, high = all_scores(maps)[-1], all_scores(maps)[0]
    points = []
    for step in range(200):
        threshold = low + step * ((high - low) / 200)
        overlap, rate = overlap_and_rate(maps, masks, lambda score, t=threshold: float(score) > t)
        if rate < limit:
            points.append((rate, overlap))
    rates = [rate for rate, _ in points]
    if not rates or max(rates) == min(rates):
        return None
    width = max(rates) - min(rates)
    return sum((x0 - x1) / width * (y0 + y1) / 2 for (x0, y0), (x1, y1) in itertools.pairwise(points))


def f1_max(scores: Any, labels: Any) -> tuple[float, float]:
    """Best F1 over `score >= threshold` for every score as threshold, and the highest best threshold."""
    best, at = -1.0, math.inf
    for threshold in sorted({float(score) for score in scores}, reverse=True):
        called = scores >= threshold
        f1 = 2 * np.sum(called & labels) / (np.sum(called) + np.sum(labels))
        if f1 > best:
            best, at = f1, threshold
    return best, at


def aupimo(maps: Any, masks: Any, lower: float, upper: float) -> list[float]:
    """Compute AUPIMO of each anomalous image: overlap at the lowest threshold that is allowed, mean over ln(rate)."""
    normal = [scores for scores, mask in zip(maps, masks, strict=True) if not mask.any()]
    steps = [  # (rate, threshold), rate ascending
        (float(np.mean([np.mean(scores >= threshold) for scores in normal])), threshold)
        for threshold in [math.inf, *all_scores(maps)]
    ]
    cuts = sorted({lower, upper, *(rate for rate, _ in steps if lower < rate < upper)})
    values = []
    for scores, mask in zip(maps, masks, strict=True):
        if mask.any():
            area = 0.0
            for begin, end in itertools.pairwise(cuts):
                threshold = min(t for rate, t in steps if rate <= begin)
                area += np.mean(scores[mask] >= threshold) * math.log(end / begin)
            values.append(area / math.log(upper / lower))
    return values
