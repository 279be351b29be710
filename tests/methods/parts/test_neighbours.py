"""Exact search, coreset and leaving one image out, against written-out loops."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.neighbours import build_memory, farthest_first, leave_one_out, nearest


def unit_rows(count: int, channels: int = 16, seed: int = 0) -> np.ndarray:
    rows: np.ndarray = np.random.default_rng(seed).standard_normal((count, channels)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


@pytest.mark.parametrize("block", [1, 7, 2**23])
@pytest.mark.parametrize("length", [1.0, 3.0])
def test_search_equals_the_loop_for_every_block(make: Any, block: int, length: float) -> None:
    queries, rows = unit_rows(13) * length, unit_rows(29, seed=1)
    expected = [min(0.5 * ((q - b) ** 2).sum() for b in rows) for q in queries]
    np.testing.assert_allclose(numpy_array(nearest(make(queries), make(rows), block)), expected, rtol=1e-4)


def test_unit_vectors_give_one_minus_the_cosine(make: Any) -> None:
    queries, rows = unit_rows(5), unit_rows(9, seed=1)
    np.testing.assert_allclose(
        numpy_array(nearest(make(queries), make(rows))), 1 - (queries @ rows.T).max(1), atol=1e-6
    )


def test_a_reference_as_test_image_has_distance_zero(make: Any) -> None:
    rows = unit_rows(500, 160)
    memory = build_memory([make(rows[:250]), make(rows[250:])])
    assert not numpy_array(memory.distances(make(rows.reshape(2, 10, 25, 160)))).any()


def test_order_and_batch_change_nothing(make: Any) -> None:
    rows, images = unit_rows(300), unit_rows(60, seed=2).reshape(3, 4, 5, 16)
    memory, shuffled = build_memory([make(rows)]), build_memory([make(rows[::-1].copy())])
    together = numpy_array(memory.distances(make(images)))
    alone = np.stack([numpy_array(memory.distances(make(image))) for image in images])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together, numpy_array(shuffled.distances(make(images))), atol=1e-6)


def test_leaving_one_out_never_sees_a_view_of_the_same_image(make: Any) -> None:
    views = [unit_rows(2 * 6, seed=seed).reshape(2, 6, 16) for seed in range(3)]
    memory = build_memory([make(view) for view in views])
    distances = numpy_array(leave_one_out(make(np.stack([view[0] for view in views])), memory))
    for i, view in enumerate(views):
        others = np.concatenate([other.reshape(-1, 16) for j, other in enumerate(views) if j != i])
        expected = [min(0.5 * ((f - b) ** 2).sum() for b in others) for f in view[0]]
        np.testing.assert_allclose(distances[i], expected, rtol=1e-4)
    with pytest.raises(InputError, match="give at least two"):
        leave_one_out(make(views[0][:1]), build_memory([make(views[0])]))
    with pytest.raises(InputError, match="no good photograph"):
        build_memory([])


def plain_selection(points: np.ndarray, count: int, seed: int) -> list[int]:
    chosen = [int(np.random.default_rng(seed).integers(len(points)))]
    while len(chosen) < count:
        distance = ((points[:, None] - points[chosen][None]) ** 2).sum(-1).min(1)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return chosen


@pytest.mark.parametrize(("total", "count"), [(40, 40), (900, 60), (600, 300)])
def test_the_selection_is_that_of_the_plain_loop(make: Any, total: int, count: int) -> None:
    points = np.random.default_rng(3).standard_normal((total, 4)).astype(np.float32)
    assert farthest_first(make(points), count, seed=5).tolist() == plain_selection(points, count, 5)


def test_the_coreset_is_repeatable_distinct_and_complete(make: Any) -> None:
    rows = np.repeat(unit_rows(50), 4, axis=0)  # copies, so that distances tie
    first, again = (farthest_first(make(rows), 120, seed=1) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len(set(first.tolist())) == 120
    memory = build_memory([make(rows[:100]), make(rows[100:])])
    small = memory.reduced(50, axes=make(np.eye(16, 12, dtype=np.float32)))
    assert small.rows.shape == (50, 16)
    assert memory.reduced(200) is memory
    # Fifty centres hold every one of the fifty different rows.
    assert not numpy_array(memory.reduced(50).distances(make(rows))).any()
    queries = make(unit_rows(20, seed=9))
    whole = farthest_first(memory.rows, 200)
    np.testing.assert_allclose(
        numpy_array(nearest(queries, memory.rows[whole])), numpy_array(memory.distances(queries)), atol=1e-6
    )
    with pytest.raises(ConfigError, match="cannot select 201 of 200"):
        farthest_first(make(rows), 201)


def test_a_pasted_square_is_where_the_distance_is_largest(make: Any) -> None:
    grid = np.tile(unit_rows(8)[None, :, None], (1, 1, 8, 1))  # every row of cells has a look of its own
    memory = build_memory([make(grid)])
    grid[0, 2:4, 5:7] = unit_rows(1, seed=8)[0]
    distances = numpy_array(memory.distances(make(grid)))[0]
    inside = np.zeros((8, 8), bool)
    inside[2:4, 5:7] = True
    assert (distances[inside] > 0.1).all()
    assert not distances[~inside].any()


def test_numpy_needs_no_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "from anomalens.methods.parts import fusion, mutual, neighbours, patches, subspace, turning\n"
        "m = neighbours.build_memory([np.eye(4, dtype=np.float32)])\n"
        "m.distances(np.ones((2, 4), np.float32)), m.reduced(2), subspace.fit_subspace(m.rows, 0.9)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
