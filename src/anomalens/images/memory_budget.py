"""Bound the memory that decoding takes over all threads of the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


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
            with self._changed:
                self.free += amount
                self._changed.notify_all()
