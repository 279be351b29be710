"""MuSc as a set method: the paper's settings against loops, ours by their properties."""

from typing import Any

import numpy as np
import pytest

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.mutual import FeatureStore
from anomalens.methods.sets import musc
from anomalens.methods.sets.set_method import SetMaps, SetMethod, create_set_method, is_set_method, list_set_methods
from mutual_by_loops import written_out

PAPER: dict[str, Any] = {
    "levels": "each", "standardise": True, "windows": (1, 3, 5), "others": 0, "top": 0.0, "rescore": (1, 2, 3),
    "words_weight": 0.0, "map_words_weight": 0.0, "position": 0.0,
}  # fmt: skip


def levels(count: int, shape: tuple[int, int, int] = (3, 4, 6), seed: int = 0) -> np.ndarray:
    """Return a level of `count` images that half precision holds exactly."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, *shape)).astype(np.float16).astype(np.float32)


def stored(method: SetMethod, batch: list[Any]) -> FeatureStore:
    store, described = FeatureStore(), method.describe(batch)
    for number in range(len(batch[0])):
        store.append([level[number] for level in described], str(number))
    return store


def test_the_papers_settings_equal_loops(make: Any) -> None:
    batch = [levels(5), levels(5, (3, 4, 9), seed=1)]
    method = create_set_method("musc", **PAPER)
    store = stored(method, [make(level) for level in batch])
    scored = method.score_set(store, turn_ratio=2.0, like_array=make(np.zeros(1, np.float32)))
    assert not method.asks_turns
    assert method.join(scored, []) is scored
    result = scored.for_score
    truth = written_out([[level[number] for level in batch] for number in range(5)], (1, 3, 5), 0.3)
    for grid, expected in zip(result, truth, strict=True):
        assert isinstance(grid, np.ndarray)
        np.testing.assert_allclose(grid, expected, atol=1e-3)  # distances are kept in half precision
    assert method.pooling.pool(np.float32(0), result[0].ravel()) == result[0].max()


def test_ours_join_the_levels_on_the_middle_grid(make: Any) -> None:
    batch = [make(levels(4, (8, 8, 2))), make(levels(4, (4, 4, 3))), make(levels(4, (2, 2, 5)))]
    joined, each = create_set_method(windows=(1, 3)), create_set_method(levels="each")
    assert [tuple(level.shape) for level in joined.describe(batch)] == [(4, 4, 4, 10)] * 2
    assert [tuple(level.shape) for level in each.describe(batch)] == [(4, 4, 4, 2), (4, 4, 4, 3), (4, 4, 4, 5)]
    lengths = np.linalg.norm(numpy_array(joined.describe(batch)[0]), axis=-1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_little_memory_changes_nothing(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    method = create_set_method(others=0)
    store = stored(method, [make(levels(9))])
    expected = method.score_set(store, 2.0)
    monkeypatch.setattr(musc, "_HELD", 1)
    again = method.score_set(store, 2.0)
    for grid, same in zip(again.for_score + again.for_map, expected.for_score + expected.for_map, strict=True):
        np.testing.assert_allclose(grid, same, atol=1e-6)


def test_words_join_where_they_have_a_weight() -> None:
    plain, placed, words = (
        [np.full((2, 2), value, np.float32) for value in values] for values in ((1, 2, 3), (5, 7, 6), (30, 10, 20))
    )
    maps = SetMaps(plain, placed)
    assert create_set_method(words_weight=0).join(maps, words) is maps
    method = create_set_method()
    assert (method.config.words_weight, method.config.map_words_weight) == (0.25, 0.2)
    joined = method.join(maps, words)
    unit = 1 / 1.4826
    for grids, expected in ((joined.for_score, (-0.75, -0.25, 1)), (joined.for_map, (-0.8, 0.8, 0))):
        np.testing.assert_allclose([grid[0, 0] for grid in grids], np.multiply(expected, unit), atol=1e-5)


def test_places_count_in_the_map_where_parts_always_lie_alike(make: Any) -> None:
    """The same two pieces in every image, in the last one exchanged: each has twins, at another place."""
    grid = levels(1, (1, 6, 8))[0]
    batch = np.stack([grid + 0.01 * levels(1, grid.shape, seed)[0] for seed in range(8)])
    batch[7, :, [0, 5]] = batch[7, :, [5, 0]]
    method = create_set_method(windows=(1,), others=0)
    store = stored(method, [make(batch)] * 3)
    assert method.asks_turns
    for ratio in (None, 1.0, 1.25):
        free = method.score_set(store, ratio, make(np.zeros(1, np.float32)))
        for plain, placed in zip(free.for_score, free.for_map, strict=True):
            np.testing.assert_array_equal(plain, placed)
    fixed = method.score_set(store, 1.26, make(np.zeros(1, np.float32)))
    for plain, same in zip(fixed.for_score, free.for_score, strict=True):
        np.testing.assert_array_equal(plain, same)
    assert fixed.for_map[7][0, [0, 5]].min() > 5 * fixed.for_map[7][0, 1:5].max()
    assert fixed.for_map[0].max() < 0.1
    assert fixed.for_score[7].max() < 0.1


def test_words_alone_count_where_images_are_too_unlike_each_other() -> None:
    words = [np.full((3, 4), value, np.float32) for value in range(6)]
    for noise, alone in ((0.05, False), (2.0, True)):
        batch = [levels(1, (3, 4, 32)) + noise * levels(6, (3, 4, 32), seed=1)]
        for weight in (0.25, 0.0):
            method = create_set_method(words_weight=weight, others=0)
            scored = method.score_set(stored(method, batch))
            assert scored.words_alone is (alone and weight > 0)
            joined = method.join(scored, words)
            assert all(len(np.unique(grid)) == 1 for grid in joined.for_map) is scored.words_alone


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": (2,)},
        {"windows": ()},
        {"share": 0.0},
        {"others": 1},
        {"top": 2.0},
        {"words_weight": -1.0},
        {"map_words_weight": -1.0},
        {"position": -1.0},
        {"position": 1.0, "levels": "each"},
        {"rescore": (0,)},
        {"levels": "some"},
        {"neighbours": 3},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        create_set_method("musc", **wrong)


def test_set_methods_are_known_by_name() -> None:
    assert [entry.name for entry in list_set_methods()] == ["musc"]
    assert is_set_method("musc")
    assert not is_set_method("memory")
    with pytest.raises(ConfigError, match="unknown set method 'mush'; known: musc"):
        create_set_method("mush")
