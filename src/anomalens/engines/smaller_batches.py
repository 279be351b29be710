"""Go on with fewer images at once where a device's memory does not hold a batch, and say so."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from anomalens.engines.contract import Floats, Scored
from anomalens.errors import is_out_of_memory
from anomalens.methods.parts.array_namespace import Array, namespace

Part = TypeVar("Part")

_log = logging.getLogger("anomalens")


class Room:
    """Remember how many images the memory holds at once. Threads may share it."""

    def __init__(self) -> None:
        # None: it has held every batch so far.
        self.most: int | None = None

    def in_parts(self, count: int, run: Callable[[slice], Part]) -> list[Part]:
        """Return what `run` gives for the images of a batch: for all at once, or for parts of it, in their order.

        Args:
            count: images of the batch.
            run: computes the images of a slice. Where the memory does not hold them it is called again, from the first
                image on, with half as many; so it must leave nothing behind, or set it back when the slice starts at 0.

        Raises what `run` raises, its error about memory only where a single image is too much.
        """
        step = min(count, self.most or count)
        while True:
            try:
                return [run(slice(start, min(start + step, count))) for start in range(0, count, step)]
            except (RuntimeError, MemoryError) as error:
                if step == 1 or not is_out_of_memory(error):
                    raise
            # After the error is gone, and with it the tensors that it held.
            self.most = step // 2
            _log.warning("the memory does not hold a batch of %d images; %d at once from here on", step, self.most)
            step = self.most

    def score(self, run: Callable[[Floats, Sequence[int]], Scored], pixels: Floats, keys: Sequence[int]) -> Scored:
        """Return the answer of `run` for a batch, which it is given in parts if need be; arguments as for an engine."""
        parts = self.in_parts(len(pixels), lambda part: run(pixels[part], keys[part]))
        return parts[0] if len(parts) == 1 else _joined(parts)


def _joined(parts: Sequence[Scored]) -> Scored:
    """Join the answers for the parts of a batch."""

    def join(arrays: Sequence[Array]) -> Array:
        return None if arrays[0] is None else namespace(arrays[0]).concatenate(arrays)

    score, heat, score_map, unlike, levels = zip(*parts, strict=True)
    return Scored(join(score), join(heat), join(score_map), join(unlike), tuple(map(join, zip(*levels, strict=True))))
