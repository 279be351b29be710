"""Bound the memory that decoding takes over all threads of the process."""

import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Bytes from which what was taken is also given back to the operating system.
_LARGE = 2**26


class MemoryBudget:
    """Share a number of bytes among threads: who wants more than is free waits until others have given back."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.free = total
        self._changed = threading.Condition()
        # Whoever waits for much holds this, so that small wishes do not pass it for ever.
        self._turn = threading.Lock()

    @contextmanager
    def take(self, amount: int) -> Iterator[None]:
        """Hold `amount` bytes within the block. More than the total is taken as all of it, alone."""
        amount = min(amount, self.total)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            if amount >= _LARGE:
                _trim()
            with self._changed:
                self.free += amount
                self._changed.notify_all()


def _find_trim() -> Callable[[], object]:
    """Return what gives freed memory back to the operating system.

    The C library of Linux keeps what a thread has freed for that thread, so that eight threads which decode one after
    the other would hold the memory of eight images.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    return (lambda: None) if trim is None else (lambda: trim(0))


_trim = _find_trim()
