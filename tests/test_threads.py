"""The bounded stream of background threads: order, memory, errors, and its end."""

import gc
import itertools
import threading
import weakref
from collections.abc import Iterator

import pytest

from anomalens.errors import ConfigError
from anomalens.threads import map_ordered


@pytest.mark.parametrize(("workers", "ahead"), [(1, 1), (2, 5), (4, 50)])
def test_stream_keeps_order(workers: int, ahead: int) -> None:
    assert list(map_ordered(range(30), lambda item: item * 2, workers, ahead)) == [
        (item, item * 2) for item in range(30)
    ]
    assert list(map_ordered([], str)) == []


def test_errors_are_results() -> None:
    results = dict(map_ordered([2, 0, 1], lambda item: 2 // item))
    assert isinstance(results.pop(0), ZeroDivisionError)
    assert results == {2: 1, 1: 2}


def test_memory_is_bounded_even_for_endless_input() -> None:
    class Picture:
        pass

    alive: weakref.WeakSet[Picture] = weakref.WeakSet()

    def load(item: int) -> Picture:
        picture = Picture()
        alive.add(picture)
        return picture

    most = 0
    produced = map_ordered(itertools.count(), load, workers=4, ahead=3)
    for item, _picture in produced:
        most = max(most, len(alive))
        if item == 40:
            break
    produced.close()
    assert most <= 3 + 1  # three waiting, one in hand
    del _picture
    gc.collect()
    assert len(alive) == 0


def test_loading_runs_ahead_but_no_further() -> None:
    begun: list[int] = []
    arrived = threading.Event()

    def load(item: int) -> int:
        begun.append(item)
        if item == 2:
            arrived.set()
        return item

    results = map_ordered(range(10), load, workers=1, ahead=3)
    assert next(results) == (0, 0)
    assert arrived.wait(10)  # items 1 and 2 are loaded without being asked for
    assert begun == [0, 1, 2]
    results.close()


@pytest.mark.parametrize("stop", [GeneratorExit, KeyboardInterrupt])
def test_closing_ends_the_threads(stop: type[BaseException]) -> None:
    before = threading.active_count()
    results = map_ordered(range(1000), lambda item: item, workers=3, ahead=10)
    next(results)
    assert threading.active_count() > before
    with pytest.raises(stop):
        results.throw(stop)
    assert threading.active_count() == before


def test_failing_source_ends_the_stream_cleanly() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise RuntimeError("the source broke")

    before = threading.active_count()
    with pytest.raises(RuntimeError, match="source broke"):
        list(map_ordered(items(), str, ahead=4))
    assert threading.active_count() == before


@pytest.mark.parametrize("bad", [{"workers": 0}, {"ahead": 0}])
def test_bad_stream_options_are_told_at_the_call(bad: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        map_ordered([1], str, **bad)
