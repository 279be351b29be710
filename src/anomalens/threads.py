"""Map a function over a stream in background threads, in order and with bounded memory."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from anomalens.errors import ConfigError

Item = TypeVar("Item")
Value = TypeVar("Value")


def map_ordered(
    items: Iterable[Item], function: Callable[[Item], Value], workers: int = 2, ahead: int = 8
) -> Generator[tuple[Item, Value | Exception]]:
    """Apply `function` to every item in `workers` background threads; yield (item, result) in the order of `items`.

    An Exception that `function` raises is that item's result, and the stream goes on. Never more than `ahead` items
    are done, or being done, without having been handed out; `items` may be endless. Closing the generator, or an
    interrupt, drops what has not begun and waits for what has.

    Raises ConfigError, at the call, when `workers` or `ahead` is below 1.
    """
    if workers < 1 or ahead < 1:
        raise ConfigError(f"workers {workers} and ahead {ahead}: both must be at least 1")
    return _map_ordered(items, function, workers, ahead)


def map_or_raise(
    items: Iterable[Item], function: Callable[[Item], Value], workers: int = 2, ahead: int = 8
) -> Generator[tuple[Item, Value]]:
    """Do as `map_ordered` does, but end with the first Exception, which is raised after the results before it."""
    for item, value in map_ordered(items, function, workers, ahead):
        if isinstance(value, Exception):
            raise value
        yield item, value


def _map_ordered(
    items: Iterable[Item], function: Callable[[Item], Value], workers: int, ahead: int
) -> Generator[tuple[Item, Value | Exception]]:
    def attempt(item: Item) -> tuple[Item, Value | Exception]:
        try:
            return item, function(item)
        except Exception as error:
            return item, error

    source = iter(items)
    waiting: deque[Future[tuple[Item, Value | Exception]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="anomalens")
    try:
        while True:
            waiting.extend(pool.submit(attempt, item) for item in islice(source, ahead - len(waiting)))
            if not waiting:
                return
            # No name holds the result, so it lives only as long as the consumer wants.
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
