"""The joining of a memory's map and that of words."""

from typing import Any

import numpy as np
import pytest

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.fusion import Fusion, Scale, fit_scale, pooled


def test_the_rule_comes_from_the_photographs_alone(make: Any) -> None:
    rng = np.random.default_rng(0)
    memory, words = rng.random((3, 4, 4)).astype(np.float32), rng.random((3, 4, 4)).astype(np.float32)
    fusion = Fusion(fit_scale(make(memory)), fit_scale(make(words)), 0.5)
    image = rng.random((2, 4, 4)).astype(np.float32)
    expected = (image - memory.mean()) / memory.std() + 0.5 * (image - words.mean()) / words.std()
    together = numpy_array(fusion.join(make(image), make(image)))
    np.testing.assert_allclose(together, expected, rtol=1e-4)
    np.testing.assert_array_equal(together[:1], numpy_array(fusion.join(make(image[:1]), make(image[:1]))))


def test_weight_zero_is_the_memory_alone() -> None:
    maps = np.ones((1, 2, 2), np.float32)
    assert (Fusion(Scale(0.0, 2.0), Scale(0.0, 1.0), 0.0).join(maps, maps * np.nan) == 0.5).all()


def test_copies_as_photographs_give_a_finite_scale() -> None:
    assert fit_scale([np.zeros((2, 2))]).deviation > 0
    assert fit_scale([np.full((2, 2), 3.0)]).deviation == pytest.approx(0.06)
    with pytest.raises(InputError, match="no map"):
        fit_scale([])
    with pytest.raises(ConfigError, match="negative"):
        Fusion(Scale(0, 1), Scale(0, 1), -1.0)


@pytest.mark.parametrize(("share", "count"), [(0.0, 1), (0.01, 1), (0.05, 5), (1.0, 100)])
def test_the_score_is_the_mean_of_the_largest(make: Any, share: float, count: int) -> None:
    maps = np.random.default_rng(0).random((3, 10, 10)).astype(np.float32)
    expected = np.sort(maps.reshape(3, -1), axis=1)[:, -count:].mean(1)
    np.testing.assert_allclose(numpy_array(pooled(make(maps), share)), expected, rtol=1e-5)
