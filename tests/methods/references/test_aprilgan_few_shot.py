"""APRIL-GAN's few-shot side against plain loops."""

from typing import Any

import numpy as np
import pytest

from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.references.reference_method import Compared, Words, create_reference
from patch_grids import enlarged, grids, nearest_loop, unit_loop

OWNERS = np.array([0, 0, 1])
SHAPES = ((5, 6, 8),) * 4


def test_map_and_score_equal_plain_loops(make: Any) -> None:
    photos, images = grids(*SHAPES), grids(*SHAPES, images=2, seed=1)
    rng = np.random.default_rng(2)
    words = Words(rng.random(2).astype(np.float32), rng.random((2, 40, 48)).astype(np.float32))
    method = create_reference("aprilgan+")
    remembered = method.remember(method.describe([make(level) for level in photos]), OWNERS, 0)
    compared = method.compare(method.describe([make(level) for level in images]), remembered)
    joined = method.join(compared, words, {"largest": 3.0})
    for number in range(2):
        map_, few = words.map[number].astype(np.float64), np.zeros((5, 6))
        for photo, image in zip(photos, images, strict=True):
            rows = unit_loop(photo.astype(np.float64)).reshape(-1, 8)
            distances = 0.5 * nearest_loop(unit_loop(image[number].astype(np.float64)), rows)
            map_ = map_ + enlarged(distances, (40, 48), aligned=True)
            few += distances
        np.testing.assert_allclose(numpy_array(joined.map)[number], map_, atol=1e-5)
        expected = (words.score[number] + few.max() / 6) / 2
        assert float(numpy_array(joined.score)[number]) == pytest.approx(expected, abs=1e-5)


def test_the_scale_is_the_largest_value_of_photographs_among_themselves() -> None:
    ordinary = Compared(*[np.array([[[0.1, 0.3]], [[0.5, 0.2]]], np.float32)] * 2)
    fitted = create_reference("aprilgan+").fit_join(ordinary, Words(np.zeros(2), np.zeros((2, 1, 2))))
    assert fitted == {"largest": 0.5}


def test_copies_of_one_photograph_leave_finite_scores() -> None:
    method = create_reference("aprilgan+")
    nothing = Compared(*[np.zeros((2, 1, 2), np.float32)] * 2)
    words = Words(np.zeros(2, np.float32), np.zeros((2, 4, 8), np.float32))
    assert np.isfinite(numpy_array(method.join(nothing, words, method.fit_join(nothing, words)).score)).all()


def test_a_photograph_that_was_taught_leaves_words_alone(make: Any) -> None:
    levels = [make(level) for level in grids(*SHAPES)]
    method = create_reference("aprilgan+")
    compared = method.compare(method.describe(levels), method.remember(method.describe(levels), OWNERS, 0))
    assert not numpy_array(compared.for_map).any()
