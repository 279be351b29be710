"""Quantiles against SciPy's."""

import pytest
from scipy import stats

from anomalens.decision.quantiles import STUDENT_90, beta_quantile


@pytest.mark.parametrize("trials", [1, 2, 5, 20, 99, 1000, 20_000])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_the_beta_distribution(trials: int, share: float) -> None:
    for second in {1, 2, trials // 2, trials} - {0}:
        first = trials + 1 - second
        if first < 1:
            continue
        assert beta_quantile(share, first, second) == pytest.approx(stats.beta.ppf(share, first, second), abs=1e-11)


def test_students_distribution() -> None:
    assert [float(stats.t.ppf(0.9, degrees)) for degrees in range(1, 18)] == pytest.approx(STUDENT_90, rel=1e-14)
