"""Give the few array operations that NumPy and PyTorch do not spell alike, so that numerics are written once.

Code that uses this otherwise keeps to what both libraries share: operators, `@`, slices, `sum`, `mean`, `amax`, `sqrt`,
`minimum`, `maximum`, `where`, `concatenate` and `stack`, reached through
`namespace`. NumPy arrays give NumPy arrays without PyTorch being imported; tensors give tensors on their device.
"""

import sys
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Array: TypeAlias = Any
"""A NumPy array or a PyTorch tensor; all arrays of one call are of the same kind."""


def is_tensor(array: Array) -> bool:
    """Tell a PyTorch tensor from a NumPy array without importing PyTorch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(array, torch.Tensor)


def is_traced(array: Array) -> bool:
    """Tell whether `array` is a tensor of a graph that is being written down."""
    return is_tensor(array) and bool(sys.modules["torch"].compiler.is_compiling())


def namespace(array: Array) -> Any:
    """Return the module whose functions work on `array`: torch for a tensor, numpy for everything else."""
    return sys.modules["torch"] if is_tensor(array) else np


def like(values: Any, array: Array, dtype: str | None = None) -> Array:
    """Convert `values` to the kind and device of `array`; `dtype` is a name such as "float32" (default: as given)."""
    if not is_tensor(array):
        return np.asarray(values, dtype)
    torch = namespace(array)
    return torch.asarray(values, dtype=None if dtype is None else getattr(torch, dtype), device=array.device)


def convert(array: Array, dtype: str) -> Array:
    """Convert an array to the type called `dtype`, such as "float32"; no copy where it has it already."""
    return like(array, array, dtype)


def unit(rows: Array) -> Array:
    """Divide vectors [..., D] by their lengths; a vector of length 0 stays 0."""
    xp = namespace(rows)
    length = xp.sqrt((rows * rows).sum(-1))[..., None]
    return rows / xp.where(length > 0, length, xp.ones_like(length))


def largest(values: Array, count: int) -> Array:
    """Return the `count` largest of the last axis, [..., n] -> [..., count], in no particular order."""
    if is_tensor(values):
        return values.topk(count, dim=-1, sorted=False).values
    return values if count == values.shape[-1] else np.partition(values, -count, axis=-1)[..., -count:]


def smallest(values: Array, count: int) -> Array:
    """Return the `count` smallest of the last axis, [..., n] -> [..., count], in no particular order."""
    return -largest(-values, count)


def numpy_array(array: Array) -> npt.NDArray[Any]:
    """Return the values as a NumPy array on the CPU."""
    return cast(npt.NDArray[Any], array.detach().cpu().numpy()) if is_tensor(array) else np.asarray(array)
