"""Keep the memory of a process that runs for weeks as small as on its first day."""

import ctypes
import sys
from contextlib import suppress

# Of <malloc.h>: blocks of this many bytes and more are mapped one by one.
_M_MMAP_THRESHOLD = -3
_LARGE = 2**19


def return_large_blocks() -> None:
    """Have freed blocks of half a megabyte and more, such as images and maps, go back to the system at once.

    Left to itself, glibc raises this size with what is freed and keeps such blocks in a pool for each thread; the pools
    grow for a long time. Nothing is done where the C library is another one.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)
