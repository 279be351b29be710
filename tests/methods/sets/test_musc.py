"""MuSc as a set method: the paper's settings against loops, ours by their properties."""

from typing import Any

import numpy as np
import pytest

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.mutual import FeatureStore
from anomalens.methods.sets import musc
from anomalens.methods.sets.set_method import SetMethod, create_set_method, is_set_method, list_set_methods
from mutual_by_loops import written_out

PAPER: dict[str, Any] = {
    "levels": "each", "standardise": True, "windows": (1, 3, 5), "others": 0, "top": 0.0, "rescore": (1, 2, 3)
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
    result = method.score_set(stored(method, [make(level) for level in batch]), make(np.zeros(1, np.float32)))
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
    expected = method.score_set(store)
    monkeypatch.setattr(musc, "_HELD", 1)
    for grid, same in zip(method.score_set(store), expected, strict=True):
        np.testing.assert_allclose(grid, same, atol=1e-6)


def test_words_join_where_they_have_a_weight() -> None:
    maps = [np.full((2, 2), value, np.float32) for value in (1, 2, 3)]
    words = [np.full((2, 2), value, np.float32) for value in (30, 10, 20)]
    assert not create_set_method().uses_words
    np.testing.assert_array_equal(create_set_method().join(maps, words), maps)
    joined = create_set_method(words_weight=2.0).join(maps, words)
    unit = 1 / 1.4826
    np.testing.assert_allclose([grid[0, 0] for grid in joined], [unit, -2 * unit, unit], atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"windows": (2,)},
        {"windows": ()},
        {"share": 0.0},
        {"others": 1},
        {"top": 2.0},
        {"words_weight": -1.0},
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
