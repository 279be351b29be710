"""Score with what good photographs taught: any engine's answers, joined with a comparison of its features.

    pixels ─▶ engine ─▶ words' score and map ───────────────────┐
                    └─▶ levels ─▶ describe ─▶ compare with R ───┴─▶ join ─▶ score, map

It is an engine itself, so everything above it (tiles, sizes, batches, streams, clusters) works as with words alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from anomalens.engines.contract import Engine, Floats, Identity, Scored
from anomalens.engines.smaller_batches import Room
from anomalens.errors import ConfigError, WeightsError, is_out_of_memory, one_line
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

    def moved(self, array: Array) -> "TaughtSize":
        """Return the same with all arrays of the kind and on the device of `array`."""
        if not is_tensor(array):
            return self
        remembered = {name: like(value, array) for name, value in vars(self.remembered).items()}
        return replace(self, remembered=replace(self.remembered, **remembered), globals=like(self.globals, array))


class JoinedArrays(NamedTuple):
    """Hold the first fields of `Scored`, as arrays of NumPy or PyTorch."""

    score: Array
    map: Array
    score_map: Array
    unlike: Array


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
        self._room = Room()

    @property
    def runtime(self) -> str:
        """Say what computes."""
        return self.words.runtime

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
        """Score a batch; see `Engine`.

        Raises ConfigError for pixels of a size that photographs were not seen at, WeightsError where what was taught
        is of another shape than the features.
        """
        side = min(pixels.shape[-2:])
        if side not in self.sizes:
            known = ", ".join(map(str, self.sizes))
            raise ConfigError(f"nothing was taught at {side} pixels, only at {known}; teach it again with this size")
        return self._room.score(lambda part, own: self._score(part, own, sharing), pixels, keys)

    def _score(self, pixels: Floats, keys: Sequence[int], sharing: int) -> Scored:
        """Score a batch, all of it at once."""
        side = min(pixels.shape[-2:])
        answer = self.words.score_batch(pixels, keys, sharing)
        levels = answer.levels
        words = Words(like(answer.score, levels[0]), like(answer.map, levels[0]))
        try:
            joined = join(words, levels, self.method, self.sizes[side].moved(levels[0]))
        except (ValueError, RuntimeError) as error:
            if is_out_of_memory(error) or re.search("shape|size|dimension", str(error)) is None:
                raise
            raise WeightsError(
                f"what was taught does not fit the features of {self.identity.backbone} ({one_line(error)}); teach the"
                " part again"
            ) from error
        score, anomaly_map, score_map, unlike = (np.asarray(numpy_array(part), np.float32) for part in joined)
        return Scored(score, anomaly_map, score_map, unlike)


def join(words: Words, levels: Sequence[Array], method: ReferenceMethod[Any], taught: TaughtSize) -> JoinedArrays:
    """Join what words say with a comparison of features with what was learned; arrays of one kind in and out.

    Args:
        words: of B images.
        levels: their grids of features [B, h, w, C].
        method: how images are compared with photographs.
        taught: what was learned, arrays of the same kind.
    """
    compared = method.compare(method.describe(levels), taught.remembered)
    joined = method.join(compared, words, taught.fitted)
    score_map = joined.map if joined.score_map is None else joined.score_map
    score = joined.score
    if score is None:
        score = namespace(score_map).amax(score_map.reshape(score_map.shape[0], -1), -1)
    unlike = nearest(global_features(levels), taught.globals) / taught.limit
    return JoinedArrays(score, joined.map, score_map, unlike)


def global_features(levels: Sequence[Array]) -> Array:
    """Describe whole images [B, G], unit vectors: the means over all places of the coarsest two levels, each unit."""
    means = [unit(level.reshape(level.shape[0], -1, level.shape[-1]).mean(1)) for level in levels[-2:]]
    return unit(namespace(levels[0]).concatenate(means, -1))
