"""The largest entries, with ties settled alike everywhere."""

import torch
from torch import Tensor


def largest(values: Tensor, count: int, dim: int = -1) -> Tensor:
    """Positions of the `count` largest entries along `dim`, largest first; of equal ones the first comes first."""
    if torch.compiler.is_compiling():  # a graph's TopK settles ties so by definition; PyTorch's does not
        return values.topk(count, dim=dim).indices
    return torch.sort(values, dim=dim, descending=True, stable=True).indices.narrow(dim, 0, count)
