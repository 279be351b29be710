"""Mix the highest values of a map into a method's image score: what ranks images of one kind of part better."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScorePooling:
    """Pool a score: (1 - share) * method's score + share * mean of the map's highest values.

    Raises ConfigError where a value is out of its range.
    """

    # Share of the map in the image score, in [0, 1]; 0 leaves the method's score as it is.
    share: float = 0.0
    # Share of the map's pixels, the highest ones, whose mean stands for the map; in (0, 1].
    top: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not 0 < self.top <= 1:
            raise ConfigError(f"score pooling: share {self.share} must lie in [0, 1] and top {self.top} in (0, 1]")

    def __call__(self, scores: Floats, maps: Floats) -> Floats:
        """Pool scores [B] with maps [B, H, W]; returns scores [B]."""
        if not self.share:
            return scores
        return np.stack([self.pool(score, values.ravel()) for score, values in zip(scores, maps, strict=True)])

    def pool(self, score: np.float32, values: Floats) -> np.float32:
        """Pool the score of one image with values [n] of its map, n >= 1."""
        if not self.share:
            return score
        count = max(1, round(self.top * len(values)))
        highest = np.partition(values, -count)[-count:].mean()
        return np.float32((1 - self.share) * score + self.share * highest)

    @property
    def ignores_method_score(self) -> bool:
        """Tell whether the image score comes from the map alone."""
        return self.share == 1
