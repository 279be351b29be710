"""Choose a threshold from the scores of an unlabelled folder, most of whose images are taken to be sound.

    cut = q40 + DEVIATIONS * (q40 - q10)                    q: quantiles of the folder's scores, interpolated

Both quantiles lie among sound images as long as no more than 4 in 10 images are faulty, and of a normal distribution
their distance is about a standard deviation. Nothing is promised about the rate of false alarms: the shape of the
scores of sound images is not known.
"""

from collections.abc import Sequence

import numpy as np

ASSUMPTION = "holds where at least 60 of 100 are sound"
"""What the threshold takes for granted, in words."""

# Distances between the quantiles, above the higher one, from which an image counts as anomalous.
DEVIATIONS = 3.0
_LOW, _HIGH = 0.1, 0.4


def folder_threshold(scores: Sequence[float]) -> float:
    """Return the threshold of n >= 1 scores, larger = more anomalous; of equal scores none lies above it."""
    low, high = np.quantile(np.asarray(scores, np.float64), [_LOW, _HIGH])
    return float(high + DEVIATIONS * (high - low))
