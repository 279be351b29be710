"""Draw the good photographs that a part is taught from, where an evaluation teaches each class from a few of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anomalens.datasets.layouts import Sample
from anomalens.errors import InputError


@dataclass(frozen=True)
class Draw:
    """Hold one choice of good photographs of a class."""

    seed: int
    # Normal images to learn from.
    photos: tuple[Sample, ...]
    # Labelled test images to measure on; none of them is learned from.
    tests: tuple[Sample, ...]

    @property
    def steps(self) -> int:
        """Return how many images are looked at."""
        return len(self.photos) + len(self.tests)


def draw(samples: Sequence[Sample], shots: int, seed: int) -> Draw:
    """Choose normal images of one class to learn from, without replacement.

    They come from the normal training images; where there are none, from the normal test images, which then leave the
    test.

    Args:
        samples: of the class.
        shots: how many to choose.
        seed: of the choice; equal samples and seeds give equal choices.

    Raises InputError where the class has fewer.
    """
    pool = [sample for sample in samples if sample.split == "train" and sample.label == 0]
    place = "training"
    if not pool:
        pool = [sample for sample in samples if sample.split == "test" and sample.label == 0]
        place = "test"
    if len(pool) < shots:
        raise InputError(f"{len(pool)} normal {place} images, too few to learn from {shots}")
    positions = sorted(np.random.default_rng(seed).choice(len(pool), shots, replace=False).tolist())
    photos = tuple(pool[position] for position in positions)
    tests = tuple(
        sample for sample in samples if sample.split == "test" and sample.label is not None and sample not in photos
    )
    return Draw(seed, photos, tests)


def draws(samples: Sequence[Sample], shots: int, count: int) -> list[Draw]:
    """Make `count` choices with the seeds 0, 1, 2, ...; see `draw`."""
    return [draw(samples, shots, seed) for seed in range(count)]
