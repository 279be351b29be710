"""Thresholds from labels, against trying every one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalens.decision.thresholds import best_f1, for_recall, least_cost
from anomalens.errors import ConfigError, InputError
from anomalens.metrics.summary import f1_max

Cases = list[tuple[float, bool]]
CASES = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.7, 1.0]), st.booleans()), min_size=2, max_size=30).filter(
    lambda cases: len({label for _, label in cases}) == 2
)


def counts(cases: Cases, cut: float) -> tuple[int, int, int]:
    """Found, missed, false alarms of: anomalous where score > cut."""
    caught = sum(score > cut for score, label in cases if label)
    alarms = sum(score > cut for score, label in cases if not label)
    return caught, sum(label for _, label in cases) - caught, alarms


def everything(cases: Cases) -> list[float]:
    return [-1.0, *sorted({score for score, _ in cases})]


@given(CASES)
def test_best_f1_is_the_largest(cases: Cases) -> None:
    scores, labels = zip(*cases, strict=True)

    def f1(cut: float) -> float:
        caught, missed, alarms = counts(cases, cut)
        return 2 * caught / (2 * caught + missed + alarms)

    best = f1(best_f1(scores, labels))
    assert best == pytest.approx(max(map(f1, everything(cases))))
    largest = f1_max(scores, labels)
    assert largest is not None
    assert best == pytest.approx(largest.value)


@given(CASES, st.floats(0.01, 1))
def test_recall_is_reached_with_the_fewest_alarms(cases: Cases, recall: float) -> None:
    scores, labels = zip(*cases, strict=True)
    caught, missed, alarms = counts(cases, for_recall(scores, labels, recall))
    assert caught / (caught + missed) >= recall - 1e-9
    possible = [counts(cases, cut) for cut in everything(cases)]
    assert alarms == min(a for f, m, a in possible if f / (f + m) >= recall - 1e-9)


@given(CASES, st.floats(0.1, 10), st.floats(0.1, 10))
def test_cost_is_the_least(cases: Cases, miss: float, alarm: float) -> None:
    scores, labels = zip(*cases, strict=True)

    def cost(cut: float) -> float:
        _, missed, alarms = counts(cases, cut)
        return miss * missed + alarm * alarms

    assert cost(least_cost(scores, labels, miss, alarm)) == pytest.approx(min(map(cost, everything(cases))))


def test_thresholds_lie_between_scores() -> None:
    assert best_f1([0.25, 0.75], [0, 1]) == 0.5
    above = np.nextafter(0.25, 1)
    assert best_f1([0.25, above], [0, 1]) == 0.25  # no float lies between
    assert least_cost([0.1, 0.2], [0, 1], miss=1e-9, alarm=1) == pytest.approx(0.15)
    assert best_f1(np.array([0.25, 0.75], np.float32), [0, 1]) == 0.5


def test_a_recall_in_decimals() -> None:
    scores, labels = [*range(100), -1], [1] * 100 + [0]
    assert for_recall(scores, labels, 0.07) == 92.5


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="no normal one"):
        best_f1([0.1], [1])
    with pytest.raises(InputError, match="no anomalous one"):
        best_f1([0.1], [0])
    with pytest.raises(ConfigError, match="recall"):
        for_recall([0.1, 0.2], [0, 1], 0)
    with pytest.raises(ConfigError, match="above 0"):
        least_cost([0.1, 0.2], [0, 1], 0, 1)
