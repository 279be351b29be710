"""Choose a threshold with labels: the best F1, a wanted recall, or the least cost.

All decide as the detector does, anomalous where score > threshold, and lie halfway between two neighbouring scores, so
that a change of the last digit of a score does not change a decision.
"""

from typing import Any

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.metrics.arrays import Floats, flat_pair


def best_f1(scores: Any, labels: Any) -> float:
    """Return the threshold of the largest F1 = 2 TP / (2 TP + FP + FN); of several, the highest.

    scores [n]: larger = more anomalous; labels [n]: 1 anomalous. Raises InputError unless both kinds are present.
    """
    cuts, detected, alarms, total = _sweep(scores, labels)
    return float(cuts[np.argmax(2 * detected / (detected + alarms + total))])


def check_recall(recall: float) -> None:
    """Raise ConfigError unless `recall` is a share in (0, 1]."""
    if not 0 < recall <= 1:
        raise ConfigError(f"recall is a share in (0, 1], found {recall}; 0.95 means 95 of 100 defects")


def check_costs(miss: float, alarm: float) -> None:
    """Raise ConfigError unless both are above 0."""
    if not (miss > 0 and alarm > 0):
        raise ConfigError(f"costs must be above 0, found {miss} for a miss and {alarm} for a false alarm")


def for_recall(scores: Any, labels: Any, recall: float) -> float:
    """Return the highest threshold that detects at least the share `recall` in (0, 1] of the anomalous images.

    It holds for these images; how far it carries over to others depends on how many there are. Arguments as for
    `best_f1`.
    """
    check_recall(recall)
    cuts, detected, _, total = _sweep(scores, labels)
    # 0.07 of 100 images is 7.000000000000001 in floats; the margin keeps 7 images enough.
    return float(cuts[np.argmax(detected >= recall * total - 1e-9)])


def least_cost(scores: Any, labels: Any, miss: float, alarm: float) -> float:
    """Return the threshold of the least cost miss x FN + alarm x FP; of several, the highest.

    Args:
        scores, labels: as for `best_f1`; normal and anomalous images should be as frequent as in practice.
        miss: cost of calling an anomalous image normal, above 0, in any unit.
        alarm: cost of calling a normal image anomalous, above 0, in the same unit.
    """
    check_costs(miss, alarm)
    cuts, detected, alarms, total = _sweep(scores, labels)
    return float(cuts[np.argmin(miss * (total - detected) + alarm * alarms)])


def _sweep(scores: Any, labels: Any) -> tuple[Floats, Floats, Floats, int]:
    """Return every threshold that decides differently, from the highest, where no image is anomalous, to the lowest.

    Returns thresholds, anomalous and normal images above each, and the number of anomalous images.
    """
    values, truth = flat_pair(scores, labels)
    if not truth.any() or truth.all():
        missing = "normal" if truth.all() else "anomalous"
        raise InputError(f"a threshold from labels needs both kinds of images, and there is no {missing} one")
    levels = np.unique(values.astype(np.float64))[::-1]
    middle = levels[:-1] / 2 + levels[1:] / 2
    # Between neighbouring floats there is no middle: the lower float serves, because the comparison is strict.
    between = np.where((middle < levels[:-1]) & (middle >= levels[1:]), middle, levels[1:])
    cuts = np.concatenate(([levels[0]], between, [np.nextafter(levels[-1], -np.inf)]))
    detected, alarms = (
        part.size - np.searchsorted(np.sort(part), cuts, side="right") for part in (values[truth], values[~truth])
    )
    return cuts, detected.astype(np.float64), alarms.astype(np.float64), int(truth.sum())
