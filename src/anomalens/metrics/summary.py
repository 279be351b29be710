"""Compute the numbers of anomaly detection: exact, in [0, 1], None where undefined, and never from a changed score.

Every function here is pure. Scores are finite real numbers of any sign and range, higher = more anomalous;
truth is boolean, 0/1 or 0/255, anomalous = 1. Bad values raise InputError, bad options ConfigError.

Image level   auroc, average_precision, f1_max         of scores [n] and labels [n]
Pixel level   the same three                           of maps and masks [H, W] or [B, H, W]
Regions       aupro, aupro_200, region_recall, aupimo  of maps and masks, images of any sizes in a list
Streams       PixelAccumulator                         map by map, mergeable, exact or in constant memory
Uncertainty   image_intervals, pixel_intervals         bootstrap over images
Curves        roc_curve, pr_curve, pro_curve           of a table from `rank` or `PixelAccumulator.ranks`

Regions are the 8-connected components of each mask. Formulas and comparisons with other packages are in
docs/metrics.md.
"""

from typing import Any, NamedTuple

import numpy as np

from anomalens.metrics import ranks as table
from anomalens.metrics.accumulator import Mode, PixelAccumulator, check_limit, defined
from anomalens.metrics.arrays import Floats, each_map, flat_pair
from anomalens.metrics.aupimo import Aupimo, aupimo
from anomalens.metrics.bootstrap import Interval, image_intervals, pixel_intervals
from anomalens.metrics.counting import rank_scores
from anomalens.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from anomalens.metrics.ranks import Ranks
from anomalens.metrics.regions import label_regions

__all__ = [
    "METRIC_NAMES",
    "SUMMARY_KEYS",
    "Aupimo",
    "Curve",
    "F1Max",
    "Interval",
    "Mode",
    "PixelAccumulator",
    "Ranks",
    "aupimo",
    "aupro",
    "aupro_200",
    "auroc",
    "average_precision",
    "f1_max",
    "image_intervals",
    "pixel_intervals",
    "pr_curve",
    "pro_curve",
    "rank",
    "region_recall",
    "roc_curve",
    "summarise",
    "trapezoid_precision",
]

METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO",
    "aupro_200": "AUPRO-200",
    "aupimo": "AUPIMO",
}
"""What tables call each metric, by its key in files."""

SUMMARY_KEYS = tuple(key for key in METRIC_NAMES if key != "aupimo")
"""The metrics that `summarise` computes, in the order of the tables."""


class F1Max(NamedTuple):
    """Hold the largest F1 and where it is reached."""

    # In [0, 1].
    value: float
    # In units of the score; scores >= threshold are called anomalous.
    threshold: float


def rank(scores: Any, labels: Any) -> Ranks:
    """Return the table behind the metrics and curves, for scores and labels of one shape. O(n log n)."""
    values, truth = flat_pair(scores, labels)
    return rank_scores(values[~truth], values[truth])


def auroc(scores: Any, labels: Any) -> float | None:
    """Return the area under the ROC curve: the chance that an anomalous entry outscores a normal one, ties count half.

    scores, labels: same shape, any. None unless both kinds are present.
    """
    return defined(table.auroc(rank(scores, labels)))


def average_precision(scores: Any, labels: Any) -> float | None:
    """Return average precision: the sum over thresholds of (recall step) x precision, without interpolation.

    scores, labels: same shape, any. None unless both kinds are present.
    """
    return defined(table.average_precision(rank(scores, labels)))


def trapezoid_precision(scores: Any, labels: Any) -> float | None:
    """Return the area under the precision-recall points joined by straight lines, which is mostly above
    `average_precision`.

    scores, labels: same shape, any. None unless both kinds are present. Some papers call it average precision
    (AnoVL's code: scikit-learn's `auc(recall, precision)`).
    """
    return defined(table.trapezoid_precision(rank(scores, labels)))


def f1_max(scores: Any, labels: Any) -> F1Max | None:
    """Return the largest F1 = 2TP / (2TP + FP + FN) over all thresholds, and the highest threshold that gives it.

    scores, labels: same shape, any. None unless both kinds are present.
    """
    value, threshold = table.f1_max(rank(scores, labels))
    return None if np.isnan(value) else F1Max(float(value), float(threshold))


def aupro(maps: Any, masks: Any, limit: float = 0.3) -> float | None:
    """Return the area under the per-region overlap curve for false-positive rates up to `limit`, divided by `limit`.

    The overlap is the mean over all regions of the share of a region's pixels found; the rate is taken over
    the normal pixels of all images. Exact: the curve is the straight-line one through every threshold.

    maps, masks: [H, W], [B, H, W], or sequences of [H, W] of any sizes; a mask may be None (normal image).
    limit: in (0, 1]. None without normal pixels or without regions.
    Source: Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", IJCV.
    """
    check_limit(limit)
    return defined(table.aupro(_accumulated(maps, masks).ranks(), limit))


def aupro_200(maps: Any, masks: Any, limit: float = 0.3) -> float | None:
    """Return the variant of AUPRO behind the tables of AnomalyCLIP, Crane and others; not comparable with `aupro`.

    200 thresholds t_k = min + k (max - min) / 200 over all scores; scores > t_k are called anomalous; of the
    200 points those with a false-positive rate < `limit` are kept, their rates are rescaled so that the
    smallest becomes 0 and the largest 1, and the trapezoid rule gives the area.

    Arguments as for `aupro`. None without normal pixels or regions, or when fewer than two different rates
    remain (a constant map, say).
    """
    return _accumulated(maps, masks).aupro_200(limit)


def region_recall(maps: Any, masks: Any, threshold: float) -> Floats:
    """Return the share of each region's pixels that score >= threshold, [R] in [0, 1].

    Regions come in order of the images and, within an image, of their first pixel. Arguments as for `aupro`.
    """
    shares = [np.zeros(0)]
    for scores, mask in each_map(maps, masks):
        positions, region, sizes = label_regions(mask)
        detected = scores.ravel()[positions] >= threshold
        shares.append(np.bincount(region[detected], minlength=sizes.size) / sizes)
    return np.concatenate(shares)


def summarise(
    scores: Any, labels: Any, accumulator: PixelAccumulator | None = None, limit: float = 0.3
) -> dict[str, float | None]:
    """Return the eight numbers of a results table, in per cent (0-100), None where undefined.

    scores, labels: image level, [n]. accumulator: the maps of the same images; None = image level only.
    Keys: SUMMARY_KEYS. `limit` is that of `aupro` and `aupro_200`.
    """
    ranks = rank(scores, labels)
    pixel = (accumulator or PixelAccumulator()).compute(limit)
    fractions = {
        "image_auroc": defined(table.auroc(ranks)),
        "image_ap": defined(table.average_precision(ranks)),
        "image_f1max": defined(table.f1_max(ranks)[0]),
    } | pixel
    return {key: None if (value := fractions[key]) is None else 100.0 * value for key in SUMMARY_KEYS}


def _accumulated(maps: Any, masks: Any) -> PixelAccumulator:
    accumulator = PixelAccumulator("exact")
    accumulator.update(maps, masks)
    return accumulator
