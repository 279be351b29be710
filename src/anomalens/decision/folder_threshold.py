"""Choose a threshold from the scores of an unlabelled folder, most of whose images are taken to be sound.

    cut = median + DEVIATIONS * 1.4826 * median |score - median|

Median and median absolute deviation hardly move while fewer than half of the images are faulty. Nothing is promised
about the rate of false alarms: the shape of the scores of sound images is not known.
"""

from collections.abc import Sequence

import numpy as np

# Robust deviations above the median from which an image counts as anomalous.
DEVIATIONS = 3.5
# Of a normal distribution, the standard deviation in units of the median absolute deviation.
_NORMAL = 1.4826


def folder_threshold(scores: Sequence[float]) -> float:
    """Return the threshold of n >= 1 scores, larger = more anomalous; of equal scores none lies above it."""
    values = np.asarray(scores, np.float64)
    middle = np.median(values)
    return float(middle + DEVIATIONS * _NORMAL * np.median(np.abs(values - middle)))


def assumption(count: int) -> str:
    """Say in a sentence where the threshold of `count` images comes from, and what it takes for granted."""
    return f"from the {count} images of this set: holds where at least {count // 2 + 1} of them are sound"
