"""Keep the memory of a process that runs for weeks as small as on its first day."""

import ctypes
import sys
from contextlib import suppress

# Of <malloc.h>: how many free bytes at the end of a pool go back to the system, from how many bytes blocks are mapped
# one by one, and how many pools threads share.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
# Smaller blocks, such as the map of an image, are used again: to map every block of half a megabyte anew costs 7 % of
# the processor time of an image.
_LARGE = 2**21
_KEPT = 2**23
_POOLS = 2


def return_large_blocks() -> None:
    """Have freed blocks of 2 megabytes and more, such as pixels and batches, go back to the system at once.

    Left to itself, glibc raises this size with what is freed and keeps such blocks in a pool for each thread; the pools
    grow for a long time. Nothing is done where the C library is another one.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            settle = ctypes.CDLL(None).mallopt
            settle(_M_MMAP_THRESHOLD, _LARGE)
            settle(_M_TRIM_THRESHOLD, _KEPT)
            settle(_M_ARENA_MAX, _POOLS)
