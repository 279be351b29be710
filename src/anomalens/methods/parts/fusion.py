"""Join the map of a memory with the map of words by a rule that the good photographs alone decide.

    fused = z(memory's map) + weight * z(words' map)          z(x) = (x - mean) / deviation

Mean and deviation of each come from maps of the good photographs, for the memory each photograph against a memory that
lacks it. So the rule is fixed before any image in question is seen, and an image's score never depends on others. The
weight is one constant for all kinds of parts.

Shapes: K photographs, B images, h w grid of the maps.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import Array, largest, numpy_array

# A deviation below this share of the mean says that the photographs are copies, not that every difference counts.
_LEAST = 0.02


@dataclass(frozen=True)
class Scale:
    """State what is ordinary for a map: mean and deviation over all places of maps of good photographs."""

    mean: float
    # Standard deviation of the values, above 0.
    deviation: float

    def standardise(self, maps: Array) -> Array:
        """Bring maps to units of the deviation, 0 being ordinary."""
        return (maps - self.mean) / self.deviation


def fit_scale(maps: Iterable[Array]) -> Scale:
    """Fit mean and deviation to the maps [..., h, w] of good photographs, every place of them counting alike.

    Raises InputError without maps.
    """
    values = [numpy_array(part).astype(np.float64).ravel() for part in maps]
    if not values:
        raise InputError("no map of a good photograph to fit a scale to")
    flat = np.concatenate(values)
    mean = float(flat.mean())
    floor = max(_LEAST * abs(mean), float(np.finfo(np.float32).tiny))
    return Scale(mean, max(float(flat.std()), floor))


@dataclass(frozen=True)
class Fusion:
    """State how two maps become one."""

    memory: Scale
    words: Scale
    # Weight of the words' map, >= 0; 0 leaves the memory's map alone.
    weight: float

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ConfigError(f"weight {self.weight} of the words must not be negative")

    def join(self, memory: Array, words: Array) -> Array:
        """Join maps of one shape [..., h, w]; 0 is ordinary, larger is more abnormal."""
        fused = self.memory.standardise(memory)
        return fused + self.weight * self.words.standardise(words) if self.weight else fused


def pooled(maps: Array, share: float = 0.01) -> Array:
    """Score images by the mean of the largest values of their maps: [B, h, w] -> [B].

    share: of the places, 0..1; where that is less than one place, the largest value alone counts.
    """
    flat = maps.reshape(maps.shape[0], -1)
    return largest(flat, max(1, int(share * flat.shape[1]))).mean(-1)
