"""Draw the random numbers of AnoCLIP+'s adaptation alike for every runtime: by NumPy, a seed and an image's content.

Nothing here needs torch, so an exported detector draws what the method itself draws, and takes it as an input.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError

# Numbers drawn for an image at most.
_MOST = 2**28

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Draws:
    """State how many numbers an image needs, and how they are distributed.

    Raises ConfigError where they are more than any method draws.
    """

    # R, rows of the adapter.
    rows: int
    # M, tokens of the image.
    count: int
    # E, joint width.
    width: int
    # S, optimiser steps, each with noise of its own.
    steps: int
    # Standard deviation of the noise.
    noise: float
    # All randomness is derived from it and each image's content.
    seed: int

    def __post_init__(self) -> None:
        sizes = (self.rows, self.count, self.width, self.steps)
        if min(sizes) < 0 or max(self.rows, self.steps * self.count) * self.width > _MOST:
            raise ConfigError(f"draws of {sizes} numbers are out of range")

    def draw(self, keys: Sequence[int]) -> tuple[Floats, Floats, Floats]:
        """Draw weights [B, R, E], biases [B, R] and noise [B, S, M, E] for images with these content keys.

        Weights and biases are uniform in ±1/√E, as PyTorch's linear layer starts.
        """
        drawn = [self._draw_image(key) for key in keys]
        weight, bias, noise = (np.stack(parts) for parts in zip(*drawn, strict=True))
        return weight, bias, noise

    def _draw_image(self, key: int) -> tuple[Floats, Floats, Floats]:
        mixed = hashlib.blake2b(f"{self.seed}:{key}".encode(), digest_size=8).digest()
        random = np.random.Generator(np.random.PCG64(int.from_bytes(mixed, "little")))
        bound = np.float32(self.width**-0.5)
        weight = bound * (2 * random.random((self.rows, self.width), np.float32) - 1)
        bias = bound * (2 * random.random(self.rows, np.float32) - 1)
        noise = np.float32(self.noise) * random.standard_normal((self.steps, self.count, self.width), np.float32)
        return weight, bias, noise
