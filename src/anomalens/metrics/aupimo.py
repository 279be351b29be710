"""Compute the area under the per-image overlap curve at very low false-positive rates.

Source: Bertoldo, Ameln, Vaidya, Akçay 2024, "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed
and Low Tolerance", arXiv 2401.01984; authors' code: github jpcbertoldo/aupimo. The definition is the authors'. Their
code sweeps 300,000 evenly spaced thresholds and applies the trapezoid rule; this one takes the integral in closed form
over every score, so that it is defined on small or oddly distributed data too.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from anomalens.errors import ConfigError
from anomalens.metrics.arrays import Array, Floats, Integers, each_map


@dataclass(frozen=True)
class Aupimo:
    """Hold the AUPIMO of every anomalous image, and their mean."""

    # Mean in [0, 1]; None without a normal or without an anomalous image.
    value: float | None
    # [n] in [0, 1], a number for each anomalous image; empty where undefined.
    per_image: Floats
    # [n] places of these images among all, from 0.
    images: Integers


def aupimo(maps: Any, masks: Any, bounds: tuple[float, float] = (1e-5, 1e-4)) -> Aupimo:
    """Return the mean share of an image's anomalous pixels found while the false-positive rate runs over `bounds`.

    The rate x is shared by all images and taken on normal images only: the mean over them of each one's
    share of pixels at or above the threshold. The mean over x is taken on a logarithmic axis:

        AUPIMO_i = 1 / ln(upper/lower) * integral from lower to upper of overlap_i(x) d ln x
                 = mean over anomalous pixels p of image i of clip( ln(upper/x_p) / ln(upper/lower), 0, 1 )

    where overlap_i(x) is the largest overlap whose rate does not exceed x, and x_p the rate of the threshold
    at the score of p. The two lines are equal because p adds 1/n_i to the overlap from x_p on.

    maps, masks: [H, W], [B, H, W], or sequences of [H, W] of any sizes; a mask may be None (normal image).
    bounds: lower and upper rate, 0 < lower < upper <= 1. Memory O(pixels of normal images).
    Raises ConfigError for other bounds, InputError for bad maps or masks.
    """
    lower, upper = bounds
    if not 0.0 < lower < upper <= 1.0:
        raise ConfigError(
            f"bounds are two false-positive rates, 0 < lower < upper <= 1; found {bounds!r}; "
            "the paper's are (1e-5, 1e-4)"
        )
    normal: list[Array] = []
    anomalous: dict[int, Array] = {}
    for index, (scores, mask) in enumerate(each_map(maps, masks)):
        if mask.any():
            anomalous[index] = scores[mask]
        elif scores.size:
            normal.append(scores.ravel())
    if not normal or not anomalous:
        return Aupimo(None, np.zeros(0), np.zeros(0, np.intp))

    candidates, rate = _high_normals(normal, upper)
    per_image = []
    for scores in anomalous.values():
        x = rate[np.searchsorted(candidates, scores, side="left")]
        # x = 0 (above every normal pixel) counts in full; the lower bound stands in for it.
        part = np.log(upper / np.maximum(x, lower)) / math.log(upper / lower)
        per_image.append(float(np.clip(part, 0.0, 1.0).mean()))
    values = np.array(per_image)
    return Aupimo(float(values.mean()), values, np.array(list(anomalous), np.intp))


def _high_normals(images: list[Array], upper: float) -> tuple[Array, Floats]:
    """Return the highest normal scores [n] ascending, and the shared rate [n+1] of thresholds that reach down to each.

    Of an image only so many scores are kept that they alone make the rate exceed `upper`: scores below them cannot
    matter, and the counts above stay exact.
    """
    kept, weight = [], []
    for scores in images:
        pixel = 1.0 / (len(images) * scores.size)
        count = min(scores.size, math.floor(upper / pixel) + 2)
        kept.append(np.partition(scores, scores.size - count)[scores.size - count :])
        weight.append(np.full(count, pixel))
    scores, weights = np.concatenate(kept), np.concatenate(weight)
    order = np.argsort(scores)
    rate = np.concatenate(([0.0], np.cumsum(weights[order][::-1])))[::-1]
    return scores[order], rate
