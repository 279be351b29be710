"""Thresholds chosen with labels: the best F1, a wanted recall, or the least cost.

All decide as the detector does, anomalous where score > threshold, and lie halfway between two neighbouring scores,
so that the choice does not hang on the last digit of either.
"""

from typing import Any

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.metrics.arrays import flat_pair
from anomalens.metrics.ranks import Floats


def best_f1(scores: Any, labels: Any) -> float:
    """The threshold of the largest F1 = 2 TP / (2 TP + FP + FN); of several, the highest.

    scores [n]: larger = more anomalous; labels [n]: 1 anomalous. Raises InputError unless both kinds are present.
    """
    cuts, found, alarms, total = _sweep(scores, labels)
    return float(cuts[np.argmax(2 * found / (found + alarms + total))])


def check_recall(recall: float) -> None:
    """Raises ConfigError unless `recall` is a share in (0, 1]."""
    if not 0 < recall <= 1:
        raise ConfigError(f"recall is a share in (0, 1], found {recall}; 0.95 means 95 of 100 defects")


def check_costs(miss: float, alarm: float) -> None:
    """Raises ConfigError unless both are above 0."""
    if not (miss > 0 and alarm > 0):
        raise ConfigError(f"costs must be above 0, found {miss} for a miss and {alarm} for a false alarm")


def for_recall(scores: Any, labels: Any, recall: float) -> float:
    """The highest threshold that finds at least the share `recall` in (0, 1] of the anomalous images.

    It holds for the given images; how far it carries over depends on how many there are. Arguments as for `best_f1`.
    """
    check_recall(recall)
    cuts, found, _, total = _sweep(scores, labels)
    # A share such as 0.07 of 100 is 7.000000000000001 in floats: ask for a hair less than one image more.
    return float(cuts[np.argmax(found >= recall * total - 1e-9)])


def least_cost(scores: Any, labels: Any, miss: float, alarm: float) -> float:
    """The threshold of the least miss x FN + alarm x FP; of several, the highest.

    `miss`: cost of an anomalous image let through; `alarm`: of a normal one stopped; both > 0, any unit. The shares
    of normal and anomalous images count as given. Arguments as for `best_f1`.
    """
    check_costs(miss, alarm)
    cuts, found, alarms, total = _sweep(scores, labels)
    return float(cuts[np.argmin(miss * (total - found) + alarm * alarms)])


def _sweep(scores: Any, labels: Any) -> tuple[Floats, Floats, Floats, int]:
    """All decisions there are, from "nothing is anomalous" down: cuts, anomalous and normal images above, total."""
    values, truth = flat_pair(scores, labels)
    if not truth.any() or truth.all():
        missing = "normal" if truth.all() else "anomalous"
        raise InputError(f"a threshold from labels needs both kinds of images, and no {missing} one is given")
    levels = np.unique(values.astype(np.float64))[::-1]
    middle = levels[:-1] / 2 + levels[1:] / 2
    # Between neighbouring floats there is no middle: the lower one serves, because the comparison is strict.
    between = np.where((middle < levels[:-1]) & (middle >= levels[1:]), middle, levels[1:])
    cuts = np.concatenate(([levels[0]], between, [np.nextafter(levels[-1], -np.inf)]))
    found, alarms = (
        part.size - np.searchsorted(np.sort(part), cuts, side="right") for part in (values[truth], values[~truth])
    )
    return cuts, found.astype(np.float64), alarms.astype(np.float64), int(truth.sum())
