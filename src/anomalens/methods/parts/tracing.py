"""Hold what differs while a method is traced into a graph: a graph is made once, for batches and values not known yet.

All of `methods` asks here, so that no method branches on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def may_stop(settled: Tensor) -> bool:
    """Tell whether an iteration may end early because `settled`, a boolean scalar, is true; a graph runs them all."""
    return not torch.compiler.is_compiling() and bool(settled)


def chunks(values: Tensor, count: int) -> Sequence[Tensor]:
    """Split a batch [B, ...] into parts of at most `count`. A graph takes batches of any size, so it keeps them whole:
    its user keeps to `ExportTraits.batch_limit`."""
    return (values,) if torch.compiler.is_compiling() else torch.split(values, count)


def largest(values: Tensor, count: int, dim: int = -1) -> Tensor:
    """Return the positions of the `count` largest entries along `dim`, largest first; of equal ones the first is first.

    That is how a graph's TopK settles ties by definition; PyTorch's does not, so a stable sort stands in for it.
    """
    if torch.compiler.is_compiling():
        return values.topk(count, dim=dim).indices
    return torch.sort(values, dim=dim, descending=True, stable=True).indices.narrow(dim, 0, count)
