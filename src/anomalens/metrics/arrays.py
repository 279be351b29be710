"""Check what enters a metric, once, at the boundary: scores of any finite real kind, and yes/no truth."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalens.errors import InputError

Array = NDArray[Any]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Truth = NDArray[np.bool_]

_EXACT_IN_FLOAT64 = 2**53  # beyond it neighbouring integers share one float64


def as_scores(values: Any) -> Array:
    """Return `values` as a float32 or float64 array of the same numbers; ±0 become one zero, nothing else changes.

    Small integers, booleans and half floats widen to float32, wider integers to float64; both are exact.
    Raises InputError for NaN, infinity, a kind that is not real numbers, or integers beyond 2^53.
    """
    try:
        scores = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"scores must be an array of real numbers, but they cannot be read as one ({error}); "
            "pass a NumPy array, or a detached CPU tensor of float32"
        ) from error
    kind, size = scores.dtype.kind, scores.dtype.itemsize
    if scores.size == 0:
        return np.zeros(scores.shape, np.float32)
    if kind == "b" or (kind in "iu" and size <= 2) or (kind == "f" and size <= 4):
        scores = scores.astype(np.float32, copy=False)
    elif (kind == "f" and size == 8) or (kind in "iu" and size == 4):
        scores = scores.astype(np.float64, copy=False)
    elif kind in "iu":
        if int(scores.max()) > _EXACT_IN_FLOAT64 or int(scores.min()) < -_EXACT_IN_FLOAT64:
            raise InputError("integer scores beyond ±2^53 cannot be ordered exactly; scale them down first")
        scores = scores.astype(np.float64)
    else:
        raise InputError(f"scores must be real numbers, found dtype {scores.dtype}; convert them to float32")
    # NaN propagates through both, and neither makes a temporary array.
    low, high = scores.min(), scores.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = int(np.count_nonzero(~np.isfinite(scores)))
        raise InputError(
            f"scores must be finite, found {bad} NaN or infinite of {scores.size}; "
            "a method that yields them is broken: repair it rather than dropping pixels"
        )
    if low <= 0:
        # -0 + 0 = +0, so that equal scores are one score.
        scores = scores + scores.dtype.type(0)
    return scores


def as_truth(values: Any, shape: tuple[int, ...], name: str = "mask") -> Truth:
    """Return `values` as booleans, True = anomalous. Accepts booleans and the numbers 0, 1 and 255.

    Raises InputError, which calls the values `name`, for any other value or for a shape that is not `shape`.
    """
    try:
        truth = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} cannot be read as an array ({error}); pass booleans or 0 and 1") from error
    if truth.shape != shape:
        raise InputError(f"{name} has shape {truth.shape}, but the scores have {shape}; resize one to the other first")
    if truth.dtype == np.bool_:
        return truth
    if truth.size == 0:
        return np.zeros(shape, np.bool_)
    if truth.dtype.kind not in "iuf" or not ((truth == 0) | (truth == 1) | (truth == 255)).all():
        raise InputError(
            f"{name} must hold booleans or only 0 and 1 (255 counts as 1), found dtype {truth.dtype} "
            "with other values; threshold it first"
        )
    return np.asarray(truth != 0, np.bool_)


def flat_pair(scores: Any, truth: Any) -> tuple[Array, Truth]:
    """Return scores and labels of one shape, checked, as two flat arrays. Raises InputError as the functions above."""
    checked = as_scores(scores)
    return checked.ravel(), as_truth(truth, checked.shape, "labels").ravel()


def each_map(maps: Any, masks: Any) -> Iterator[tuple[Array, Truth]]:
    """Yield pairs of map [H, W] and mask [H, W] out of one pair, two stacks [B, H, W], or two iterables.

    A mask, or `masks` as a whole, may be None: a normal image. Images may differ in size.
    Raises InputError for other shapes, unequal counts, or values the functions above refuse.
    """
    if hasattr(maps, "ndim") and maps.ndim == 2:
        yield as_map(maps, masks)
        return
    if not isinstance(maps, Iterable):
        raise InputError(f"maps must be an array or an iterable of arrays of shape [H, W], found {type(maps).__name__}")
    if masks is None:
        for single in maps:
            yield as_map(single, None)
        return
    missing = object()
    for single, mask in zip_longest(maps, masks, fillvalue=missing):
        if single is missing or mask is missing:
            raise InputError("maps and masks must be as many; give None as the mask of a normal image")
        yield as_map(single, mask)


def as_map(scores: Any, mask: Any) -> tuple[Array, Truth]:
    """Return one anomaly map [H, W] and its mask [H, W] (None: all normal), checked."""
    checked = as_scores(scores)
    if checked.ndim != 2:
        raise InputError(f"an anomaly map must have shape [H, W], found {checked.shape}; drop the other axes")
    if mask is None:
        return checked, np.zeros(checked.shape, np.bool_)
    return checked, as_truth(mask, checked.shape)
