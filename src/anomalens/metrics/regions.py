"""Find the defect regions of a mask, and weigh them in whole numbers so that no sum depends on its order."""

import numpy as np

from anomalens.errors import InputError
from anomalens.images.connected import find_runs
from anomalens.metrics.arrays import Array, Integers, Truth

# One region weighs 2^40 units, dealt out to its pixels without remainder. Whole numbers add up to the same
# sum in any order, and the share of a region above any threshold is off by less than 2^-40 = 9.1e-13.
UNITS = 1 << 40
# 2^22 regions of 2^40 units stay below 2^63.
MAX_REGIONS = 1 << 22


def label_regions(mask: Truth) -> tuple[Integers, Integers, Integers]:
    """Find the 8-connected regions of a mask [H, W].

    Returns, for its n anomalous pixels, their flat positions [n] ascending and the region [n] each is in
    (0 .. R-1), then the size [R] of every region in pixels.
    """
    runs = find_runs(mask)
    return np.flatnonzero(mask), runs.of_pixels(runs.regions), runs.areas


def deal_units(keys: Array, region: Integers, sizes: Integers) -> tuple[Integers, Integers]:
    """Deal each region's UNITS to its pixels in ascending order of `keys` [n] (scores, or their bins).

    The i-th pixel of a region of n gets floor(i UNITS / n) - floor((i-1) UNITS / n). The units at or below any key
    are then floor(i UNITS / n), however ties are ordered and however keys are later merged, which makes every way of
    counting agree to the last bit.

    Returns the order [n] (by region, then key) and the units [n] in that order.
    """
    order = np.lexsort((keys, region))
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    rank = np.arange(1, keys.size + 1, dtype=np.int64) - np.repeat(starts, sizes)
    size = np.repeat(sizes, sizes)
    return order, _floor_units(rank, size) - _floor_units(rank - 1, size)


def check_region_count(regions: int) -> None:
    """Raise InputError when `regions` would overflow the whole-number weights."""
    if regions > MAX_REGIONS:
        raise InputError(
            f"one accumulator holds at most {MAX_REGIONS:,} defect regions, found {regions:,}; "
            "evaluate the classes separately, or check that the masks are not noise"
        )


def _floor_units(rank: Integers, size: Integers) -> Integers:
    """Return floor(rank * 2^40 / size) without leaving int64, in two steps of 20 bits (size < 2^43)."""
    high, rest = np.divmod(rank << 20, size)
    return (high << 20) + (rest << 20) // size
