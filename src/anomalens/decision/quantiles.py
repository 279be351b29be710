"""Give quantiles of the two distributions that thresholds rest on; SciPy would weigh 140 MB in an installation."""

import math

import numpy as np

STUDENT_90 = (
    3.0776835371752544,
    1.8856180831641272,
    1.637744353696209,
    1.533206274058944,
    1.4758840488244815,
    1.4397557472651483,
    1.4149239276505086,
    1.3968153097438654,
    1.3830287383966329,
    1.372183641110336,
    1.3634303180205407,
    1.356217334023205,
    1.3501712887800552,
    1.345030374454651,
    1.3406056078504558,
    1.3367571673273153,
    1.3333793897216268,
)
"""The 90 % quantile of Student's distribution with 1, 2, ... 17 degrees of freedom (`scipy.stats.t.ppf(0.9, df)`)."""

# Halvings of [0, 1]: more than a float has bits.
_HALVINGS = 60


def beta_quantile(share: float, first: int, second: int) -> float:
    """Return the quantile of a Beta distribution with whole numbers as its parameters, both at least 1.

    It is found by bisection: the distribution's value at x is the probability of `first` or more successes among
    first + second - 1 trials that succeed with probability x (Abramowitz and Stegun, 26.5.24).
    """
    trials = first + second - 1
    # The shorter of the two tails is added up; of this one, the logarithms of its binomial coefficients.
    counts = np.arange(first) if first <= second else np.arange(first, trials + 1)
    steps = np.arange(1, trials + 1)
    logarithms = np.concatenate(([0.0], np.cumsum(np.log(trials - steps + 1) - np.log(steps))))[counts]
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tail = math.fsum(np.exp(logarithms + counts * math.log(middle) + (trials - counts) * math.log1p(-middle)))
        reached = 1 - tail if first <= second else tail
        low, high = (middle, high) if reached < share else (low, middle)
    return low
