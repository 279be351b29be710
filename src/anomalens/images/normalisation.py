"""Describe how pixels are prepared for a backbone: the figures travel with its weights."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from anomalens.errors import ConfigError

Triple = tuple[float, float, float]
Interpolation = Literal["bicubic", "bilinear"]

# Of OpenAI's training set, per channel of RGB in [0, 1] (Radford et al. 2021, code at github.com/openai/CLIP).
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class PixelFormat:
    """Describe how the images of a set of weights are resized and normalised."""

    mean: Triple
    """Subtracted per channel from values in [0, 1]."""
    std: Triple
    """Divided by, per channel; above 0."""
    interpolation: Interpolation = "bicubic"
    """Kernel of the resizing."""

    @classmethod
    def parse(cls, mean: Any, std: Any, interpolation: Any) -> "PixelFormat":
        """Check values that were read from a file. Raises ConfigError naming those that cannot be used."""
        try:
            (m0, m1, m2), (s0, s1, s2) = ([float(value) for value in values] for values in (mean, std))
            fits = all(map(math.isfinite, (m0, m1, m2, s0, s1, s2))) and s0 > 0 and s1 > 0 and s2 > 0
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise ConfigError(f"mean {mean!r:.80} and std {std!r:.80} must be 3 finite numbers each, std above 0")
        if interpolation not in ("bicubic", "bilinear"):
            raise ConfigError(f"interpolation {interpolation!r}, expected 'bicubic' or 'bilinear'")
        return cls((m0, m1, m2), (s0, s1, s2), interpolation)


CLIP_PIXELS = PixelFormat(CLIP_MEAN, CLIP_STD)
"""The pixels of OpenAI's weights."""
