"""Choose a threshold from normal images alone, with a guaranteed false-alarm rate (split-conformal prediction).

Of n scores of normal images take the k-th smallest, k = ceil((n + 1) (1 - fpr)), and call an image anomalous where
its score lies above it. Then

    P(a new normal image is called anomalous) <= fpr

for any detector, good or bad, any distribution of scores and any n from `needed(fpr)` on. The condition is
exchangeability: the new normal image and the n images could have come in any order. It fails where they differ in
kind: another camera, light or product, retouched or hand-picked images, copies of one image, or images the thresholds
were tuned on.

The probability is taken over the draw of the n images too. For a fixed choice of them the true rate varies around fpr,
the less the larger n is; `rate_interval` says how far.

Source: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; the p-value as in Bates et al.,
"Testing for outliers with conformal p-values", Annals of Statistics 2023.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from anomalens.decision.quantiles import beta_quantile
from anomalens.errors import ConfigError, InputError

GUARANTEE = (
    "A new normal image is called anomalous with probability at most {fpr}, over the draw of the {n} calibration "
    "images and of the new one, provided that they are exchangeable: same kind of object, camera and light, none "
    "hand-picked, no copies."
)


Rate: TypeAlias = float | Fraction
"""A rate of false alarms in (0, 1): the decimal as it was written, or an exact fraction such as 1/21."""


def needed(fpr: Rate) -> int:
    """Return the least number of normal images for a guaranteed false-alarm rate `fpr`: ceil(1 / fpr) - 1."""
    return math.ceil(1 / _rate(fpr)) - 1


def threshold(scores: Sequence[float], fpr: Rate) -> float:
    """Return the conformal threshold of n scores of normal images: images that score above it are anomalous.

    Args:
        scores: n finite scores in any order, larger = more anomalous.
        fpr: the false-alarm rate not to exceed, in (0, 1).

    Raises:
        InputError: fewer than `needed(fpr)` scores, or one that is not finite.
        ConfigError: `fpr` outside (0, 1).
    """
    least = needed(fpr)
    n = len(scores)
    if n < least:
        best = f"{n} images guarantee {math.ceil(100000 / (n + 1)) / 1000:g} % at best" if n else "there is no image"
        raise InputError(
            f"a false-alarm rate of {100 * float(fpr):g} % needs at least {least} normal images, found {n}: "
            f"{best}; add {least - n} or raise the rate"
        )
    ordered = sorted(map(float, scores))
    if not np.isfinite(ordered).all():
        raise InputError("a score is not finite; check the weights, or use dtype float32")
    return ordered[_rank(n, fpr) - 1]


def p_value(normal_scores: Sequence[float], score: float) -> float:
    """Return how rare so high a score is among normal images: (1 + number of normal scores >= score) / (n + 1).

    The result lies in (0, 1]. `normal_scores`: n scores in ascending order. For a normal image P(p <= u) <= u under
    the condition above, and p <= fpr exactly where the score lies above `threshold(normal_scores, fpr)`.
    """
    n = len(normal_scores)
    return (1 + n - bisect_left(normal_scores, score)) / (n + 1)


def rate_interval(n: int, fpr: Rate, level: float = 0.9) -> tuple[float, float]:
    """Return the bounds between which the true false-alarm rate of n fixed images lies with probability `level`.

    It follows Beta(n + 1 - k, k) when scores have no ties, whatever their distribution; ties only lower it.
    """
    k = _rank(n, fpr)
    outside = (1 - level) / 2
    return beta_quantile(outside, n + 1 - k, k), beta_quantile(1 - outside, n + 1 - k, k)


def _rank(n: int, fpr: Rate) -> int:
    return math.ceil((n + 1) * (1 - _rate(fpr)))


def promise(fpr: Rate) -> str:
    """Say what a threshold for this rate promises: "at most 1 in 21 sound images is called anomalous"."""
    rate = _rate(fpr)
    if rate.numerator == 1:
        return f"at most 1 in {rate.denominator} sound images is called anomalous"
    return f"at most {100 * float(rate):.3g} % of sound images are called anomalous"


def _rate(fpr: Rate) -> Fraction:
    if not 0 < fpr < 1:
        raise ConfigError(f"a false-alarm rate lies between 0 and 1, found {fpr}; 0.01 means one in a hundred")
    # The decimal that was written, because in floats 100 * (1 - 0.58) exceeds 42.
    return fpr if isinstance(fpr, Fraction) else Fraction(repr(float(fpr)))
