"""Score with what good photographs taught: any engine's answers, joined with a comparison of its features.

    pixels ─▶ engine ─▶ words' score and map ───────────────────┐
                    └─▶ levels ─▶ describe ─▶ compare with R ───┴─▶ join ─▶ score, map

It is an engine itself, so everything above it (tiles, sizes, batches, streams, clusters) works as with words alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from anomalens.engines.contract import Engine, Floats, Identity, Scored
from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import Array, is_tensor, like, namespace, numpy_array, unit
from anomalens.methods.parts.neighbours import nearest
from anomalens.methods.references.reference_method import QUARTERS, ReferenceMethod, Words


@dataclass(frozen=True)
class TaughtSize:
    """Hold what was learned from good photographs seen at one size."""

    # What the reference method remembers: a dataclass of NumPy arrays, numbers as float32.
    remembered: Any
    # What it needs to join distances and words.
    fitted: Mapping[str, float]
    # [K, G] a unit vector that describes each photograph as a whole.
    globals: Array
    # The largest half squared distance to the nearest of them at which an image still shows the same thing.
    limit: float


class TaughtEngine:
    """Join an engine for words with what was learned from photographs at each size."""

    def __init__(
        self, words: Engine, method: ReferenceMethod[Any], sizes: Mapping[int, TaughtSize], identity: Identity
    ) -> None:
        """Join an engine that hands out levels with what was learned.

        Args:
            words: from `Engine.with_levels`.
            method: how images are compared with photographs.
            sizes: what was learned, by the shorter side of the pixels.
            identity: of the whole.
        """
        self.words, self.method, self.sizes, self.identity = words, method, dict(sizes), identity

    @property
    def parallel(self) -> int:
        """Say how many batches are worth scoring at the same time."""
        return self.words.parallel

    def for_object(self, name: str) -> "TaughtEngine":
        """Return itself. Raises ConfigError for another name: the join was fitted to the words about this one."""
        if name != self.identity.object_name:
            raise ConfigError(
                f"this part was taught as {self.identity.object_name!r}, not {name!r}; teach it again under the new "
                "name, or leave the name out"
            )
        return self

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> Engine:
        """Raise ConfigError: it is taught already."""
        raise ConfigError("this detector has learned from photographs already; teach the detector it was made from")

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Score a batch; see `Engine`. Raises ConfigError for pixels of a size that photographs were not seen at."""
        side = min(pixels.shape[-2:])
        if side not in self.sizes:
            known = ", ".join(map(str, self.sizes))
            raise ConfigError(f"nothing was taught at {side} pixels, only at {known}; teach it again with this size")
        answer = self.words.score_batch(pixels, keys, sharing)
        return join(answer, self.method, self.sizes[side])


def join(answer: Scored, method: ReferenceMethod[Any], taught: TaughtSize) -> Scored:
    """Join an engine's answer for words, which holds levels, with a comparison with what was learned."""
    levels = answer.levels
    compared = method.compare(method.describe(levels), move(taught.remembered, levels[0]))
    joined = method.join(compared, Words(answer.score, answer.map), taught.fitted)
    unlike = nearest(global_features(levels), like(taught.globals, levels[0])) / taught.limit
    score_map = joined.map if joined.score_map is None else joined.score_map
    score = score_map.reshape(len(score_map), -1).max(-1) if joined.score is None else joined.score
    return Scored(
        score=_floats(score if isinstance(score, np.ndarray) else numpy_array(score)),
        map=_floats(numpy_array(joined.map)),
        score_map=None if joined.score_map is None else _floats(numpy_array(joined.score_map)),
        unlike=_floats(numpy_array(unlike)),
    )


def global_features(levels: Sequence[Array]) -> Array:
    """Describe whole images [B, G], unit vectors: the means over all places of the coarsest two levels, each unit."""
    means = [unit(level.reshape(level.shape[0], -1, level.shape[-1]).mean(1)) for level in levels[-2:]]
    return unit(namespace(levels[0]).concatenate(means, -1))


def move(remembered: Any, array: Array) -> Any:
    """Return a dataclass of NumPy arrays with all of them of the kind and on the device of `array`."""
    if not is_tensor(array):
        return remembered
    return replace(remembered, **{name: like(value, array) for name, value in vars(remembered).items()})


def _floats(values: Any) -> Floats:
    return np.asarray(values, np.float32)
