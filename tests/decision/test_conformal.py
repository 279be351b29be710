"""The conformal guarantee: by simulation, by counting, and at its edges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalens.decision.conformal import needed, p_value, rate_interval, threshold
from anomalens.errors import ConfigError, InputError

RATES = st.floats(0.001, 0.999).map(lambda x: round(x, 3))


@pytest.mark.parametrize("draw", ["normal", "heavy tail", "few values"])
@pytest.mark.parametrize(("n", "fpr"), [(19, 0.05), (40, 0.1), (99, 0.01), (7, 0.3)])
def test_the_guarantee_holds_for_any_distribution(draw: str, n: int, fpr: float) -> None:
    random = np.random.default_rng(0)
    shape = (10000, n + 1)
    if draw == "normal":
        scores = random.normal(size=shape)
    elif draw == "heavy tail":
        scores = random.standard_cauchy(shape)
    else:
        scores = random.integers(0, 5, shape).astype(float)
    alarms = np.array([row[-1] > threshold(row[:-1], fpr) for row in scores])
    spread = np.sqrt(fpr * (1 - fpr) / alarms.size)
    assert alarms.mean() <= fpr + 4 * spread
    if draw != "few values":  # without ties the rate is exactly floor((n + 1) fpr) / (n + 1): no alarm is given away
        assert alarms.mean() >= np.floor(round((n + 1) * fpr, 9)) / (n + 1) - 4 * spread


def test_p_values_are_uniform_at_worst() -> None:
    random = np.random.default_rng(1)
    scores = random.normal(size=(4000, 20))
    p_values = np.array([p_value(sorted(row[:-1]), row[-1]) for row in scores])
    for level in (0.05, 0.1, 0.5, 0.9):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / 4000))


@given(st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=60), RATES, st.floats(-4, 4))
def test_alarm_and_p_value_say_the_same(scores: list[float], fpr: float, score: float) -> None:
    if len(scores) < needed(fpr):
        with pytest.raises(InputError, match="needs at least"):
            threshold(scores, fpr)
        return
    for value in (score, float(round(score))):
        p = p_value(sorted(scores), value)
        assert p == (1 + sum(s >= value for s in scores)) / (len(scores) + 1)
        assert (value > threshold(scores, fpr)) == (p <= fpr)


@given(RATES)
def test_needed_is_the_least_that_works(fpr: float) -> None:
    n = needed(fpr)
    threshold([0.0] * n, fpr)
    if n > 1:
        with pytest.raises(InputError):
            threshold([0.0] * (n - 1), fpr)


def test_the_order_statistic() -> None:
    assert threshold(list(range(99, 0, -1)), 0.01) == 99  # the largest of 99
    assert threshold(list(range(1, 200)), 0.01) == 198
    assert threshold(list(range(1, 100)), 0.58) == 42  # 100 * (1 - 0.58) is 42.00000000000001 in floats


def test_too_few_says_how_many() -> None:
    with pytest.raises(InputError, match=r"1 % needs at least 99 normal images, found 20: .* 4\.762 %"):
        threshold([0.5] * 20, 0.01)
    with pytest.raises(InputError, match="there is no image"):
        threshold([], 0.1)


@pytest.mark.parametrize("fpr", [0, 1, -0.1, 2, float("nan")])
def test_rates_outside(fpr: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        threshold([1.0] * 200, fpr)


def test_scores_must_be_numbers() -> None:
    with pytest.raises(InputError, match="not finite"):
        threshold([0.1] * 20 + [float("nan")], 0.1)


def test_the_rate_of_one_calibration_varies_as_stated() -> None:
    random = np.random.default_rng(2)
    low, high = rate_interval(50, 0.1)
    rates = np.array([1 - threshold(row, 0.1) for row in random.random((4000, 50))])  # uniform: exceeded by 1 - t
    assert np.mean((rates >= low) & (rates <= high)) == pytest.approx(0.9, abs=0.02)
    assert rates.mean() == pytest.approx(5 / 51, abs=0.002)
    assert rate_interval(1000, 0.1)[1] < high
