"""A batch that the memory does not hold is answered in parts, with a note, and with the same numbers."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from anomalens import load_detector
from anomalens.backbones.dino import Dino
from anomalens.engines import taught
from anomalens.engines.contract import Floats, Scored
from anomalens.engines.smaller_batches import Room
from parts import coloured_part

NO_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB (see max_split_size_mb)"


def small(inner: Callable[..., Any], images: Callable[..., int], most: int) -> tuple[Callable[..., Any], list[int]]:
    """Return a function that computes as `inner` in a memory that holds `most` images at once, and what it was asked.

    images: says from the arguments how many there are.
    """
    counts: list[int] = []

    def run(*arguments: Any) -> Any:
        counts.append(images(*arguments))
        if counts[-1] > most:
            raise torch.OutOfMemoryError(NO_MEMORY)
        return inner(*arguments)

    return run, counts


@pytest.mark.parametrize("method", ["anoclip", "anoclip+"])
def test_the_same_answers_in_smaller_batches(
    tiny_weights: Path, method: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine: Any = load_detector(method, str(tiny_weights), size=64, views=1).engine.with_levels()
    pixels = np.random.default_rng(0).standard_normal((7, 3, 64, 64)).astype(np.float32)
    want = engine.score_batch(pixels, range(7))
    run, counts = small(engine.method.encode, lambda clip, images, keys: len(images), 2)
    monkeypatch.setattr(engine.method, "encode", run)
    with caplog.at_level(logging.WARNING, "anomalens"):
        answer = engine.score_batch(pixels, range(7))
    assert counts == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert [record.getMessage() for record in caplog.records] == [
        "the memory does not hold a batch of 7 images; 3 at once from here on",
        "the memory does not hold a batch of 3 images; 1 at once from here on",
    ]
    np.testing.assert_allclose(answer.score, want.score, atol=1e-5)
    np.testing.assert_allclose(answer.map, want.map, atol=1e-5)
    assert len(answer.levels) == len(want.levels) > 0
    for level, other in zip(answer.levels, want.levels, strict=True):
        np.testing.assert_allclose(level, other, atol=1e-5)
    counts.clear()
    engine.for_object("nut").score_batch(pixels[:2], range(2))
    assert counts == [1, 1], "what was learned about the memory is kept"


def test_what_is_carried_from_batch_to_batch_is_not_counted_twice(
    tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = load_detector("anoclip+", str(tiny_weights), size=64, views=1, carry_optimizer=True).engine
    run, counts = small(engine.method.encode, lambda clip, images, keys: len(images), 1)
    monkeypatch.setattr(engine.method, "encode", run)
    with pytest.raises(torch.OutOfMemoryError):
        engine.score_batch(np.zeros((2, 3, 64, 64), np.float32), range(2))
    assert counts == [2]


@pytest.mark.parametrize("part", ["tower", "comparison"])
def test_a_tower_of_images_and_what_was_taught(tiny_dinov2: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    good = [coloured_part(number) for number in range(3)]
    engine: Any = load_detector("anomalydino", str(tiny_dinov2), size=56).fit(good, turns=1).engine
    pixels = np.random.default_rng(0).standard_normal((5, 3, 56, 56)).astype(np.float32)
    want = engine.score_batch(pixels, range(5))
    if part == "tower":
        run, counts = small(Dino.levels, lambda network, images, taps: len(images), 2)
        monkeypatch.setattr(Dino, "levels", run)
    else:
        run, counts = small(taught.join, lambda words, *rest: len(words.score), 2)
        monkeypatch.setattr(taught, "join", run)
    answer = engine.score_batch(pixels, range(5))
    assert counts == [5, 2, 2, 1]
    for array, other in zip(answer[:4], want[:4], strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)


def test_a_single_image_too_large_is_an_error() -> None:
    asked: list[int] = []

    def run(pixels: Floats, keys: Sequence[int]) -> Scored:
        asked.append(len(keys))
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 7 bytes")

    with pytest.raises(RuntimeError, match="not enough memory"):
        Room().score(run, np.zeros((4, 3, 8, 8), np.float32), range(4))
    assert asked == [4, 2, 1]


def test_other_errors_are_not_tried_again() -> None:
    asked: list[slice] = []

    def run(part: slice) -> None:
        asked.append(part)
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Room().in_parts(4, run)
    assert asked == [slice(0, 4)]
