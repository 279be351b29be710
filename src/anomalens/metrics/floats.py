"""Read float32 numbers as integers in the same order."""

import numpy as np
from numpy.typing import NDArray

from anomalens.errors import InputError
from anomalens.metrics.arrays import Array, Floats, Integers

_MAGNITUDE = np.int32(0x7FFFFFFF)
_LARGEST = float(np.finfo(np.float32).max)


def order_keys(scores: Array) -> NDArray[np.int32]:
    """Return integers [n] in the order of the scores [n] read as float32; equal scores have equal keys.

    A float32's bits, read as a signed integer, ascend with it; those of negative numbers descend until the
    magnitude bits are flipped. float64 scores are rounded to float32 first; one beyond its range raises
    InputError. Zeros must be positive, as `as_scores` leaves them.
    """
    if scores.dtype != np.float32:
        if scores.size and max(-float(scores.min()), float(scores.max())) > _LARGEST:
            raise InputError(
                "histogram mode counts float32 scores, found float64 ones beyond ±3.4e38; "
                "use mode='exact' or scale the scores"
            )
        # A tiny negative number may round to -0.
        scores = scores.astype(np.float32) + np.float32(0)
    keys: NDArray[np.int32] = np.ascontiguousarray(scores).view(np.int32)
    if keys.size and keys.min() < 0:
        keys = keys ^ ((keys >> 31) & _MAGNITUDE)
    return keys


def key_values(keys: Integers) -> Floats:
    """Return the scores behind keys."""
    narrow = keys.astype(np.int32)
    bits = narrow ^ ((narrow >> 31) & _MAGNITUDE)
    return bits.view(np.float32).astype(np.float64)


def round_down(values: Floats) -> NDArray[np.float32]:
    """Return the largest float32 not above each value: a float32 score exceeds either of them or neither."""
    nearest = np.clip(values, -_LARGEST, _LARGEST).astype(np.float32)
    # Below the smallest float32 lies minus infinity.
    with np.errstate(over="ignore"):
        below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > values, below, nearest) + np.float32(0)
