"""Batches through PyTorch: side by side where that pays, and nothing left changed."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalens import load_detector
from anomalens.backbones.bundle import BUNDLED_FILE
from anomalens.decision.calibration import bundled_calibration
from anomalens.engines.torch_engine import TorchEngine
from anomalens.methods.base import list_methods

SIDE = 64


@pytest.fixture
def make(tiny_weights: Path) -> Iterator[Callable[..., TorchEngine]]:
    """Make engines on a machine of two threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def engine(method: str = "anoclip", **options: Any) -> TorchEngine:
        loaded = load_detector(method, str(tiny_weights), size=SIDE, views=1, **options).engine
        assert isinstance(loaded, TorchEngine)
        return loaded

    yield engine
    torch.set_num_threads(before)


def batch(number: int) -> tuple[np.ndarray, list[int]]:
    random = np.random.default_rng(number)
    return random.normal(size=(2, 3, SIDE, SIDE)).astype(np.float32), [2 * number, 2 * number + 1]


def test_a_small_tower_takes_a_batch_a_thread(
    make: Callable[..., TorchEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make().parallel == 2
    assert make("anoclip+", carry_optimizer=True).parallel == 1, "order matters, so none may overtake"
    monkeypatch.setattr("anomalens.engines.torch_engine._NARROW", 8)
    assert make().parallel == 1, "a large tower needs all threads for one batch"


@pytest.mark.parametrize("sharing", [1, 2])
def test_threads_are_divided_for_one_batch_and_nothing_else(
    make: Callable[..., TorchEngine], monkeypatch: pytest.MonkeyPatch, sharing: int
) -> None:
    engine = make()
    threads: list[int] = []
    encode = engine.method.encode

    def counting(*args: Any) -> object:
        threads.append(torch.get_num_threads())
        return encode(*args)

    monkeypatch.setattr(engine.method, "encode", counting)
    want = engine.score_batch(*batch(0))
    answer = engine.score_batch(*batch(0), sharing)
    np.testing.assert_allclose(answer.map, want.map, atol=1e-6)
    assert threads == [2, 2 // sharing]
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 2, "new threads are not limited"


def test_threads_may_share_an_engine(make: Callable[..., TorchEngine]) -> None:
    engine = make("anoclip+")
    want = [engine.score_batch(*batch(i)) for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda i: engine.score_batch(*batch(i), 2), range(6)))
    for answer, expected in zip(answers, want, strict=True):
        np.testing.assert_allclose(answer.score, expected.score, atol=1e-6)
        np.testing.assert_allclose(answer.map, expected.map, atol=1e-6)


@pytest.mark.parametrize("method", [entry.name for entry in list_methods()])
def test_every_method_runs_on_the_bundled_backbone_without_a_file_of_the_users(method: str) -> None:
    detector = load_detector(method, engine="torch", device="cpu", size=SIDE)
    shipped = bundled_calibration().methods[method]
    assert detector.calibration.threshold == shipped.calibration.threshold
    photo = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    prediction = detector.predict(photo)
    assert prediction.method == method
    assert prediction.anomaly_map.shape == (SIDE, SIDE)


def test_a_copy_of_the_bundled_weights_keeps_its_calibration(tmp_path: Path) -> None:
    copied = tmp_path / "mine.safetensors"
    shutil.copy(BUNDLED_FILE, copied)
    detector, shipped = load_detector(backbone=str(copied)), load_detector()
    assert detector.calibration == shipped.calibration
    assert (detector.method_name, detector.pooling) == (shipped.method_name, shipped.pooling)
    assert detector.identity.learned == shipped.identity.learned
