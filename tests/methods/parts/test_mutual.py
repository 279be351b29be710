"""Mutual scoring against a triple loop, and the properties that its premise implies."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.mutual import (
    FeatureStore,
    MutualConfig,
    meetings,
    mutual_maps,
    neighbourhood,
    rescore,
)
from mutual_by_loops import written_out

PLAIN = MutualConfig(windows=(1,), standardise=False)


def grids(count: int, shape: tuple[int, int, int] = (2, 3, 8), seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float16) for _ in range(count)]


def filled(images: list[list[np.ndarray]], folder: Path | None = None, keys: list[str] | None = None) -> FeatureStore:
    store = FeatureStore(folder)
    for number, levels in enumerate(images):
        store.append(levels, keys[number] if keys else str(hash(levels[0].tobytes())))
    return store


def maps(store: FeatureStore, config: MutualConfig, make: Any = np.asarray) -> list[np.ndarray]:
    return [numpy_array(grid) for grid in mutual_maps(store, config, make(np.zeros(1, np.float32))).plain]


@pytest.mark.parametrize("block", [1, 2, 32])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_blocks_equal_the_triple_loop(make: Any, tmp_path: Path, block: int, share: float) -> None:
    images = [list(pair) for pair in zip(grids(4), grids(4, (2, 3, 5), seed=1), strict=True)]
    config = MutualConfig(windows=(1, 3), share=share, block=block)
    expected = written_out(images, (1, 3), share)
    for store in (filled(images), filled(images, tmp_path)):
        for result, truth in zip(maps(store, config, make), expected, strict=True):
            np.testing.assert_allclose(result, truth, atol=1e-3)  # distances are kept as float16


@pytest.mark.parametrize("weight", [0.0, 1.5])
def test_places_and_the_mean_of_the_nearest_equal_loops(make: Any, weight: float) -> None:
    """Grids of two shapes; places are the middles of cells, in sides of the image."""
    images = [grids(1, shape, seed)[0] for seed, shape in enumerate([(2, 3, 8), (3, 2, 8), (2, 3, 8), (2, 2, 8)])]
    rows = [(image / np.linalg.norm(image.astype(float), axis=-1, keepdims=True)).reshape(-1, 8) for image in images]
    places = [
        np.array([((y + 0.5) / h, (x + 0.5) / w) for y in range(h) for x in range(w)])
        for h, w, _ in (image.shape for image in images)
    ]
    config = replace(PLAIN, share=0.7, position=weight)
    result = mutual_maps(filled([[image] for image in images]), config, make(np.zeros(1, np.float32)))
    apart = []
    for i, grid in enumerate(result.placed):
        for m, value in enumerate(numpy_array(grid).ravel()):
            squared = [
                ((rows[i][m] - rows[j]) ** 2).sum(1) + (weight * (places[i][m] - places[j])) ** 2 @ np.ones(2)
                for j in range(4)
                if j != i
            ]
            plain = [((rows[i][m] - rows[j]) ** 2).sum(1).min() for j in range(4) if j != i]
            assert value == pytest.approx(np.mean(np.sqrt(sorted(each.min() for each in squared)[:2])), abs=1e-3)
            assert numpy_array(result.plain[i]).ravel()[m] == pytest.approx(
                np.mean(np.sqrt(sorted(plain)[:2])), abs=1e-3
            )
            apart.append(min(plain) / 2)
    assert result.apart == pytest.approx(np.mean(apart), abs=1e-3)


def test_the_result_does_not_depend_on_the_order(make: Any) -> None:
    images = [[grid] for grid in grids(9)]
    for others in (None, 4):
        config = MutualConfig(windows=(1, 3), others=others, block=2)
        forward, backward = maps(filled(images), config, make), maps(filled(images[::-1]), config, make)
        for a, b in zip(forward, backward[::-1], strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_grids_may_differ_between_images(make: Any) -> None:
    images = [[grids(1, (2, 3, 8))[0]], [grids(1, (4, 2, 8), 1)[0]], [grids(1, (3, 3, 8), 2)[0]]]
    assert [grid.shape for grid in maps(filled(images), PLAIN, make)] == [(2, 3), (4, 2), (3, 3)]


def test_identical_images_score_zero(make: Any) -> None:
    image = grids(1)[0]
    for keys in (["a"] * 5, ["a", "b", "c", "d", "e"]):  # known as copies, or found equal patch by patch
        assert not any(grid.any() for grid in maps(filled([[image]] * 5, keys=keys), MutualConfig(), make))


def test_a_pasted_square_is_found_where_it_lies(make: Any) -> None:
    images = [grids(1, (6, 6, 8))[0].copy() for _ in range(6)]
    images[2][1:3, 4:6] = grids(1, (1, 1, 8), seed=5)[0]
    results = maps(filled([[image] for image in images], keys=list("abcdef")), PLAIN, make)
    inside = np.zeros((6, 6), bool)
    inside[1:3, 4:6] = True
    assert (results[2][inside] > 0.3).all()
    assert not results[2][~inside].any()
    assert not any(results[i].any() for i in (0, 1, 3, 4, 5))


@pytest.mark.parametrize(("faulty", "visible"), [(2, True), (4, False)])
def test_the_same_defect_on_more_than_30_per_cent_is_lost(faulty: int, visible: bool) -> None:
    """10 images, K = 2: with 2 faulty images a defect has one twin and one stranger, with 4 it has twins only."""
    images = [grids(1, (5, 5, 8))[0].copy() for _ in range(10)]
    square = grids(1, (1, 1, 8), seed=5)[0]
    for image in images[:faulty]:
        image[2, 2] = square
    results = maps(filled([[image] for image in images], keys=list("abcdefghij")), PLAIN)
    assert bool(results[0][2, 2] > 0.1) is visible


def test_a_copy_of_a_faulty_image_does_not_hide_its_defect() -> None:
    """4 images, K = 1: without noticing the copy, its twin would make the defect ordinary."""
    images = [grids(1, (4, 4, 8))[0].copy() for _ in range(4)]
    images[0][1, 1] = images[3][1, 1] = grids(1, (1, 1, 8), seed=5)[0]
    noticed = maps(filled([[image] for image in images], keys=["x", "b", "c", "x"]), PLAIN)
    hidden = maps(filled([[image] for image in images], keys=["a", "b", "c", "d"]), PLAIN)
    assert noticed[0][1, 1] > 0.3
    np.testing.assert_array_equal(noticed[0], noticed[3])
    assert hidden[0][1, 1] == 0


@pytest.mark.parametrize(("count", "limit", "others"), [(5, None, 4), (9, 4, 4), (9, 3, 4), (9, 8, 8), (10, 50, 9)])
def test_all_images_meet_equally_many_and_each_pair_once(count: int, limit: int | None, others: int) -> None:
    pairs, number = meetings(count, limit)
    assert number == others
    assert len(set(pairs)) == len(pairs) == count * others // 2
    assert all(i < j for i, j in pairs)
    assert np.bincount(np.ravel(pairs)).tolist() == [others] * count


def test_a_part_of_the_folder_judges_about_like_the_whole() -> None:
    images = [grids(1, (6, 6, 8))[0].copy() for _ in range(40)]
    for number, image in enumerate(images):
        image += np.random.default_rng(number).normal(0, 0.1, image.shape).astype(np.float16)
    images[7][3, 3] = 3 * grids(1, (1, 1, 8), seed=5)[0]
    store = filled([[image] for image in images])
    scores = np.array([grid.max() for grid in maps(store, MutualConfig((1,), others=10))])
    assert scores.argmax() == 7
    assert scores[7] > 1.5 * np.delete(scores, 7).max()


def test_neighbourhoods_of_one_cell_only_change_the_length() -> None:
    tokens = grids(1)[0].astype(np.float32)
    expected = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    np.testing.assert_allclose(neighbourhood(tokens, 1, standardise=False), expected.reshape(-1, 8), rtol=1e-5)


def test_rescoring_equals_its_definition(make: Any) -> None:
    rng = np.random.default_rng(0)
    scores, vectors = rng.random(7).astype(np.float32), rng.standard_normal((7, 5)).astype(np.float32) + 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled = (scores - scores.min()) / (scores.max() - scores.min())
    np.testing.assert_allclose(numpy_array(rescore(make(scores), make(vectors), (1,))), scaled, rtol=1e-5)
    expected = np.zeros(7)
    for k in (1, 2, 3):
        for i in range(7):
            similar = vectors @ vectors[i]
            near = np.argsort(-similar)[:k]
            expected[i] += (similar[near] * scaled[near]).sum() / similar[near].sum() / 3
    np.testing.assert_allclose(numpy_array(rescore(make(scores), make(vectors))), expected, rtol=1e-4)
    assert not numpy_array(rescore(make(np.ones(7, np.float32)), make(vectors))).any()


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2"):
        mutual_maps(filled([[grids(1)[0]]]))
    with pytest.raises(InputError, match="different grids"):
        FeatureStore().append([np.zeros((2, 2, 1)), np.zeros((3, 2, 1))], "a")
    store = filled([[grids(1)[0]]])
    with pytest.raises(InputError, match="2 levels for an image where the others have 1"):
        store.append([grids(1)[0]] * 2, "b")
    for options in (
        {"windows": (2,)},
        {"windows": ()},
        {"share": 0.0},
        {"others": 1},
        {"block": 0},
        {"position": -1.0},
    ):
        with pytest.raises(ConfigError):
            MutualConfig(**options)
