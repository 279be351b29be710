"""Find how far patches are from the nearest patch of good photographs: exact search, coreset, leave one image out.

    distance(f) = min over rows b of the memory of ½ |f - b|²          for unit vectors: 1 - max cos(f, b)

(AnomalyDINO, Damm et al., WACV 2025; PatchCore, Roth et al., CVPR 2022, has |f - b|² of vectors that are not unit.)
The search is exact: blocks of the memory as matrix products, of which only the best of each patch is kept. A coreset
keeps the rows that a greedy k-centre selection takes, each the farthest from those taken before.

Shapes: Q queries, R rows of the memory, D channels, K images, N patches an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import Array, convert, is_traced, like, namespace, numpy_array

# Similarities in one block: 32 MB of float32.
_BLOCK = 2**23
# Squared distances below this share of the squared lengths are rounding errors of float32: the rows are equal.
_ROUNDING = 2e-6
# Rows that one round of the selection looks at closely.
_CANDIDATES = 256


@dataclass(frozen=True)
class Memory:
    """Hold patches of good photographs that are compared with."""

    # [R, D] float32.
    rows: Array
    # [R] integer: number of the photograph that a row comes from.
    owners: Array

    @property
    def images(self) -> int:
        """Return K, the number of photographs."""
        return int(self.owners.max()) + 1

    def distances(self, patches: Array) -> Array:
        """Compare patches [..., D] with all rows -> half squared distance to the nearest [...]."""
        return nearest(patches.reshape(-1, patches.shape[-1]), self.rows).reshape(patches.shape[:-1])

    def without(self, image: int) -> "Memory":
        """Leave out every row of one photograph, its turned copies included."""
        kept = self.owners != image
        return Memory(self.rows[kept], self.owners[kept])

    def reduced(self, count: int, seed: int = 0, axes: Array | None = None) -> "Memory":
        """Keep the rows of `selection`; all of them where there are no more."""
        if count >= self.rows.shape[0]:
            return self
        chosen = self.selection(count, seed, axes)
        return Memory(self.rows[chosen], self.owners[chosen])

    def selection(self, count: int, seed: int = 0, axes: Array | None = None) -> Array:
        """Return the positions [count] of a greedy k-centre selection of the rows.

        axes: [D, d] on which the selection looks at the rows, for speed; all channels where left out.
        """
        return like(farthest_first(self.rows if axes is None else self.rows @ axes, count, seed), self.rows)


def build_memory(views: Sequence[Array]) -> Memory:
    """Gather the patches of K photographs, in order: for each one array [..., D] that holds all of its views.

    Raises InputError without any photograph.
    """
    if not views:
        raise InputError("no good photograph to remember; give at least one")
    flat = [convert(view, "float32").reshape(-1, view.shape[-1]) for view in views]
    owners = np.repeat(np.arange(len(flat)), [rows.shape[0] for rows in flat])
    return Memory(namespace(flat[0]).concatenate(flat, 0), like(owners, flat[0]))


def nearest(queries: Array, rows: Array, block: int = _BLOCK) -> Array:
    """Search exactly for the nearest row of every query.

    Args:
        queries: [Q, D] float32.
        rows: [R, D] float32, R >= 1.
        block: similarities held at once, a bound of the memory used: at least one query against one row.

    Returns:
        [Q] half the squared Euclidean distance; exactly 0 for a query that is a row.

    Raises:
        InputError: no rows.
    """
    if rows.shape[0] == 0:
        raise InputError("the memory is empty: at least two good photographs are needed to leave one out")
    xp = namespace(queries)
    half = 0.5 * (rows * rows).sum(-1)
    own = 0.5 * (queries * queries).sum(-1)
    if is_traced(queries):
        # A graph takes any number of queries, so it cannot be cut into blocks by that number.
        distance = own - xp.amax(queries @ rows.T - half, -1)
        return xp.where(distance > _ROUNDING * own, distance, xp.zeros_like(distance))
    down = max(1, min(queries.shape[0], 4096, block))
    across = max(1, block // down)
    parts = []
    for start in range(0, queries.shape[0], down):
        part = queries[start : start + down]
        best = None
        for first in range(0, rows.shape[0], across):
            near = xp.amax(part @ rows[first : first + across].T - half[first : first + across], -1)
            best = near if best is None else xp.maximum(best, near)
        parts.append(own[start : start + down] - best)
    distance = xp.concatenate(parts, 0) if parts else own
    return xp.where(distance > _ROUNDING * own, distance, xp.zeros_like(distance))


def leave_one_out(patches: Array, memory: Memory) -> Array:
    """Compare each photograph with a memory that lacks all of its own rows.

    Args:
        patches: [K, ..., D], photograph i being the owner i of `memory`.

    Returns:
        [K, ...] half squared distances, as `Memory.distances`.

    Raises:
        InputError: fewer than two photographs.
    """
    if memory.images < 2:
        raise InputError("a single good photograph cannot be compared with others; give at least two")
    return namespace(patches).stack([memory.without(i).distances(patch) for i, patch in enumerate(patches)])


def farthest_first(points: Array, count: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Select points greedily, each the farthest from those before it (k-centre; Gonzalez 1985).

    The selection is that of the plain loop, which updates all distances after every choice. Distances only ever
    shrink, so the choice is known to be right as long as its updated distance exceeds the old ones of all points that
    were not looked at: many choices are made among few candidates, and then all distances are updated by one product.

    Args:
        points: [R, d] float32.
        count: points to select, 1..R.
        seed: of the first point, which is drawn.

    Returns:
        [count] positions, all different, in order of selection.

    Raises:
        ConfigError: a count outside 1..R.
    """
    total = points.shape[0]
    if not 1 <= count <= total:
        raise ConfigError(f"cannot select {count} of {total} points; choose from 1 to {total}")
    xp = namespace(points)
    lengths = (points * points).sum(-1)
    chosen = [int(np.random.default_rng(seed).integers(total))]
    distance = _squared(points, lengths, chosen)[:, 0]
    distance[chosen] = -1.0
    while len(chosen) < count:
        near = numpy_array(distance)
        size = min(total, _CANDIDATES)
        candidates = np.sort(np.argpartition(-near, size - 1)[:size])
        bound = np.delete(near, candidates).max(initial=-np.inf)
        places = like(candidates, points)
        between = numpy_array(_squared(points[places], lengths[places], list(range(size))))
        best = near[candidates]
        fresh: list[int] = []
        while len(chosen) + len(fresh) < count:
            pick = int(best.argmax())
            if fresh and best[pick] <= bound:
                break
            fresh.append(int(candidates[pick]))
            best = np.minimum(best, between[:, pick])
            best[pick] = -1.0
        distance = xp.minimum(distance, xp.amin(_squared(points, lengths, fresh), -1))
        chosen += fresh
        distance[chosen] = -1.0
    return np.asarray(chosen, np.int64)


def _squared(points: Array, lengths: Array, chosen: list[int]) -> Array:
    """Compute the squared distances [R, m] of all points to the chosen ones; lengths [R] are squared."""
    centres = points[chosen]
    distance = lengths[:, None] + lengths[chosen][None, :] - 2.0 * (points @ centres.T)
    return namespace(points).where(distance > 0, distance, 0.0 * distance)
