"""Many batches through PyTorch: in order, side by side where that pays, and nothing left changed."""

import threading
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from anomalens import load_detector
from anomalens.engines.contract import Batch
from anomalens.engines.torch_engine import TorchEngine

SIDE = 64


@pytest.fixture
def make(tiny_weights: Path) -> Iterator[Callable[..., TorchEngine]]:
    """Engines on a machine of two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def engine(method: str = "anoclip", **options: object) -> TorchEngine:
        found = load_detector(method, str(tiny_weights), size=SIDE, views=1, **options).engine  # type: ignore[arg-type]
        assert isinstance(found, TorchEngine)
        return found

    yield engine
    torch.set_num_threads(before)


def batch(number: int) -> Batch:
    random = np.random.default_rng(number)
    return random.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32), [2 * number, 2 * number + 1]


def most_at_once(engine: TorchEngine, monkeypatch: pytest.MonkeyPatch, batches: int) -> tuple[int, set[int]]:
    """The largest number of batches that were computed at a time, and how many threads each had."""
    lock, met = threading.Lock(), threading.Event()
    inside, most, threads = 0, 0, set()
    score = engine.score_batch

    def counting(*args):
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
            threads.add(torch.get_num_threads())
            if inside == 2:
                met.set()
        met.wait(0.2)  # gives a second one the time to come
        found = score(*args)
        with lock:
            inside -= 1
        return found

    monkeypatch.setattr(engine, "score_batch", counting)
    assert len(list(engine.score_batches(batch(i) for i in range(batches)))) == batches
    return most, threads


def test_results_come_in_order_and_equal_those_of_single_batches(make) -> None:
    engine = make()
    found = list(engine.score_batches(batch(i) for i in range(7)))
    for number, one in enumerate(found):
        want = engine.score_batch(*batch(number))
        np.testing.assert_allclose(one.score, want.score, atol=1e-6)
        np.testing.assert_allclose(one.map, want.map, atol=1e-6)
    assert list(engine.score_batches([])) == []


def test_a_small_tower_takes_a_batch_a_thread(make, monkeypatch) -> None:
    assert most_at_once(make(), monkeypatch, 4) == (2, {1})
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(("batches", "narrow"), [(1, 512), (4, 8)])
def test_a_single_batch_and_a_large_tower_have_all_threads(make, monkeypatch, batches, narrow) -> None:
    monkeypatch.setattr("anomalens.engines.torch_engine._NARROW", narrow)
    assert most_at_once(make(), monkeypatch, batches) == (1, {2})


def test_none_overtakes_where_order_matters(make, monkeypatch) -> None:
    engine = make("anoclip+", carry_optimizer=True)
    assert most_at_once(engine, monkeypatch, 4) == (1, {2})


def test_batches_are_drawn_as_they_are_needed_and_leaving_early_restores_the_threads(make) -> None:
    engine, drawn = make(), []

    def endless() -> Iterator[Batch]:
        for number in count():
            drawn.append(number)
            yield batch(number)

    results = engine.score_batches(endless())
    assert len(list(islice(results, 3))) == 3
    results.close()
    assert len(drawn) <= 8
    assert torch.get_num_threads() == 2
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2], "new threads take over the last setting anywhere"


def test_an_error_comes_in_its_place(make, monkeypatch) -> None:
    engine = make()
    score = engine.score_batch

    def failing(pixels, keys):
        if 4 in keys:
            raise RuntimeError("out of memory")
        return score(pixels, keys)

    monkeypatch.setattr(engine, "score_batch", failing)
    results = engine.score_batches(batch(i) for i in range(5))
    assert len(list(islice(results, 2))) == 2
    with pytest.raises(RuntimeError, match="out of memory"):
        next(results)
    assert torch.get_num_threads() == 2
