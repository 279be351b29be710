"""PatchCore against plain loops and PyTorch's own operations: windows, pooling, memory, weight of the score."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.references.patchcore import adaptive_pooling, image_weight, windows
from anomalens.methods.references.reference_method import Words, create_reference
from patch_grids import blurred_loop, grids, nearest_loop

OWNERS = np.array([0, 1, 2])
NO_WORDS = Words(np.zeros(2, np.float32), np.zeros((2, 60, 60), np.float32))


def published(levels: list[np.ndarray], channels: int) -> torch.Tensor:
    """Follow the public code step by step: unfold, enlarge every value, pool, stack, pool -> [B, h, w, channels]."""
    height, width = levels[0].shape[1:3]
    pooled = []
    for level in levels:
        images, h, w, depth = level.shape
        unfolded = F.unfold(torch.from_numpy(level).permute(0, 3, 1, 2), 3, padding=1).view(images, depth * 9, h, w)
        large = F.interpolate(unfolded, (height, width), mode="bilinear", align_corners=False)
        rows = large.permute(0, 2, 3, 1).reshape(images * height * width, 1, depth * 9)
        pooled.append(F.adaptive_avg_pool1d(rows, channels)[:, 0])
    stacked = torch.stack(pooled, 1).reshape(len(pooled[0]), 1, -1)
    return F.adaptive_avg_pool1d(stacked, channels).view(images, height, width, channels)


@pytest.mark.parametrize("channels", [8, 10, 100])
def test_features_equal_the_public_steps(make: Any, channels: int) -> None:
    """Fewer and more values than the windows hold, even and odd; the third level of a stem is not read."""
    levels = grids((8, 6, 5), (4, 3, 7), (2, 2, 4))
    method = create_reference("patchcore", channels=channels)
    (feature,) = method.describe([make(level) for level in levels])
    np.testing.assert_allclose(numpy_array(feature), published(levels[:2], channels), atol=1e-4)


def test_tokens_of_one_grid_are_two_levels_as_well(make: Any) -> None:
    levels = grids((5, 5, 12), (5, 5, 12))
    (feature,) = create_reference("patchcore", channels=32).describe([make(level) for level in levels])
    np.testing.assert_allclose(numpy_array(feature), published(levels, 32), atol=1e-4)


def test_windows_go_channel_by_channel_and_end_in_zeros(make: Any) -> None:
    level = np.arange(24, dtype=np.float32).reshape(1, 3, 4, 2) + 1
    corner = numpy_array(windows(make(level)))[0, 0, 0]
    np.testing.assert_array_equal(corner, [0, 0, 0, 0, 1, 3, 0, 9, 11, 0, 0, 0, 0, 2, 4, 0, 10, 12])


@pytest.mark.parametrize(("source", "target"), [(4608, 1024), (9, 4), (3, 7), (5, 5)])
def test_pooling_is_adaptive(source: int, target: int) -> None:
    values = torch.randn(1, 1, source, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_avg_pool1d(values, target)[0, 0]
    np.testing.assert_allclose(adaptive_pooling(source, target) @ values[0, 0].numpy(), expected, atol=1e-12)


def test_distances_map_and_score_equal_plain_loops(make: Any) -> None:
    photos, images = (grids((7, 7, 4), (4, 4, 5), images=count, seed=count) for count in (3, 2))
    method = create_reference("patchcore", channels=16)
    remembered = method.remember(method.describe([make(level) for level in photos]), OWNERS, 0)
    compared = method.compare(method.describe([make(level) for level in images]), remembered)
    joined = method.join(compared, NO_WORDS, {})
    rows = published(photos, 16).double().reshape(-1, 16).numpy()
    for number, image in enumerate(published(images, 16).double().numpy()):
        expected = nearest_loop(image, rows)
        np.testing.assert_allclose(numpy_array(compared.for_score)[number], expected, atol=1e-3, rtol=1e-4)
        assert float(numpy_array(joined.score)[number]) == pytest.approx(expected.max(), rel=1e-4)
        # 4 pixels of an image of 224: 7 patches of 15 pixels are 105 pixels.
        blurred = blurred_loop(expected, 15, 4 * 105 / 224)
        np.testing.assert_allclose(numpy_array(joined.map)[number], blurred, atol=1e-3, rtol=1e-4)


def test_the_papers_weight_equals_plain_loops(make: Any) -> None:
    (photos,), (images,) = grids((5, 5, 6)), grids((5, 5, 6), images=2, seed=1)
    method = create_reference("patchcore", channels=6, reweight=9, sigma=0.0)
    features, queries = (method.describe([make(level)]) for level in (photos, images))
    compared = method.compare(queries, method.remember(features, OWNERS, 0))
    joined = method.join(compared, NO_WORDS, {})
    rows = numpy_array(features[0]).astype(np.float64).reshape(-1, 6)
    for number, image in enumerate(numpy_array(queries[0]).astype(np.float64).reshape(2, -1, 6)):
        lengths = [[math.dist(patch, row) for row in rows] for patch in image]
        worst = max(range(len(image)), key=lambda patch: min(lengths[patch]))
        star = lengths[worst].index(min(lengths[worst]))
        around = sorted(range(len(rows)), key=lambda row: math.dist(rows[row], rows[star]))[:9]
        weight = 1 - math.exp(lengths[worst][star]) / sum(math.exp(lengths[worst][row]) for row in around)
        assert float(numpy_array(joined.score)[number]) == pytest.approx(weight * lengths[worst][star], rel=1e-4)
        squared = [min(row) ** 2 for row in lengths]
        np.testing.assert_allclose(numpy_array(joined.map)[number].ravel(), squared, rtol=1e-3, atol=1e-3)


def test_the_weight_is_finite_where_distances_are_huge(make: Any) -> None:
    rows = np.array([[0.0, 0], [3e4, 0], [0, 9e4]], np.float32)
    weight = float(image_weight(make(np.array([-2e4, 0], np.float32)), make(rows), 9))
    assert weight == pytest.approx(1.0)
    assert float(image_weight(make(rows[0]), make(rows[:1]), 9)) == 0.0


def test_a_photograph_that_was_taught_scores_nothing(make: Any) -> None:
    levels = [make(level) for level in grids((6, 6, 8), (3, 3, 8))]
    for reweight in (0, 9):
        method = create_reference("patchcore", reweight=reweight)
        compared = method.compare(method.describe(levels), method.remember(method.describe(levels), OWNERS, 0))
        assert not numpy_array(compared.for_score).any()


def test_a_coreset_of_all_is_the_memory_and_smaller_ones_are_distinct_and_repeatable(make: Any) -> None:
    levels = [make(level) for level in grids((6, 6, 8), (3, 3, 8))]
    features = create_reference("patchcore", channels=200).describe(levels)

    def rows(coreset: float, seed: int) -> np.ndarray:
        method = create_reference("patchcore", channels=200, coreset=coreset)
        return np.asarray(numpy_array(method.remember(features, OWNERS, seed).rows))

    whole = rows(1.0, 0)
    np.testing.assert_array_equal(whole, numpy_array(features[0]).reshape(-1, 200))
    some = rows(0.25, 3)
    assert some.shape == (27, 200)
    assert len(np.unique(some, axis=0)) == 27
    assert {row.tobytes() for row in some} <= {row.tobytes() for row in whole}
    np.testing.assert_array_equal(some, rows(0.25, 3))
    assert not np.array_equal(some, rows(0.25, 4))


def test_leaving_a_photograph_out_keeps_the_selection_among_the_others(make: Any) -> None:
    levels = [make(level) for level in grids((6, 6, 8), (3, 3, 8))]
    method = create_reference("patchcore", channels=16, coreset=0.5)
    features = method.describe(levels)
    memory = method.remember(features, OWNERS, 0)
    others = method.without(memory, features, OWNERS, 1, 0)
    kept = numpy_array(memory.owners) != 1
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(numpy_array(others.rows), numpy_array(memory.rows)[kept])


@pytest.mark.parametrize(
    "options", [{"channels": 0}, {"coreset": 0.0}, {"coreset": 1.5}, {"reweight": -1}, {"sigma": -1.0}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        create_reference("patchcore", **options)
