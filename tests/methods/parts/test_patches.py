"""Descriptors against written-out loops."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.patches import describe, operator, with_position


def levels(seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((2, n, n, c)).astype(np.float32) for n, c in ((8, 3), (4, 5), (2, 6))]


@pytest.mark.parametrize("window", [1, 3])
def test_descriptors_equal_the_loop(make: Any, window: int) -> None:
    grids = levels()
    result = numpy_array(describe([make(level) for level in grids], (4, 4), window, weights=(1.0, 2.0, 0.5)))
    middle = grids[1]
    expected = np.zeros((2, 4, 4, 14), np.float32)
    for b in range(2):
        for y in range(4):
            for x in range(4):
                reach = window // 2
                near = middle[b, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1].reshape(-1, 5)
                mean = near.mean(0)
                expected[b, y, x, 3:8] = 2.0 * mean / np.linalg.norm(mean)
    length = np.sqrt(1.0 + 4.0 + 0.25)
    np.testing.assert_allclose(result[..., 3:8] * length, expected[..., 3:8], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result[..., :3], axis=-1), 1 / length, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(result, axis=-1), 1.0, rtol=1e-5)


def test_enlarging_is_bilinear_and_constants_stay_constant() -> None:
    values = np.random.default_rng(0).standard_normal((1, 1, 5, 5)).astype(np.float32)
    matrix = operator(5, 1, 12)
    expected = F.interpolate(torch.from_numpy(values), size=(12, 12), mode="bilinear").numpy()[0, 0]
    np.testing.assert_allclose(matrix @ values[0, 0] @ matrix.T, expected, atol=1e-6)
    for source, window, target in ((8, 3, 4), (7, 5, 3), (4, 3, 9)):
        np.testing.assert_allclose(operator(source, window, target).sum(1), 1.0, rtol=1e-6)


def test_cells_without_features_stay_zero(make: Any) -> None:
    assert not numpy_array(describe([make(np.zeros((1, 2, 2, 3), np.float32))], (2, 2))).any()


def test_position_adds_its_squared_distance(make: Any) -> None:
    descriptors = describe([make(level) for level in levels()], (4, 4))
    plain, placed = numpy_array(descriptors)[0], numpy_array(with_position(descriptors, 2.0))[0]
    a, b = (0, 1), (3, 2)
    apart = ((a[0] - b[0]) / 4) ** 2 + ((a[1] - b[1]) / 4) ** 2
    expected = ((plain[a] - plain[b]) ** 2).sum() + 4.0 * apart
    assert ((placed[a] - placed[b]) ** 2).sum() == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ConfigError, match="no middle"):
        describe(levels(), (4, 4), window=2)
    with pytest.raises(ConfigError, match="2 weights for 3 levels"):
        describe(levels(), (4, 4), weights=(1.0, 1.0))
