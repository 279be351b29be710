"""WinCLIP+ against plain loops."""

from typing import Any

import numpy as np
import pytest

from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.references.reference_method import Words, create_reference
from anomalens.methods.references.winclip_plus import spread
from patch_grids import Floats, enlarged, grids, nearest_loop, unit_loop

OWNERS = np.array([0, 0, 1])
SHAPES = (5, 6, 7), (4, 5, 7), (6, 7, 9)
"""Windows of 2 x 2, windows of 3 x 3 and patches of a grid of 6 x 7."""


def harmonic_loop(distances: Floats, side: int) -> Floats:
    height, width = (length + side - 1 for length in distances.shape)
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            covering = [
                max(distances[top, left], 1e-6)
                for top in range(max(0, y - side + 1), min(y + 1, distances.shape[0]))
                for left in range(max(0, x - side + 1), min(x + 1, distances.shape[1]))
            ]
            out[y, x] = len(covering) / sum(1 / value for value in covering)
    return out


def test_map_and_score_equal_plain_loops(make: Any) -> None:
    photos, images = grids(*SHAPES), grids(*SHAPES, images=2, seed=1)
    rng = np.random.default_rng(2)
    words = Words(rng.random(2).astype(np.float32), rng.random((2, 24, 28)).astype(np.float32))
    method = create_reference("winclip+")
    remembered = method.remember(method.describe([make(level) for level in photos]), OWNERS, 0)
    compared = method.compare(method.describe([make(level) for level in images]), remembered)
    joined = method.join(compared, words, {})
    for number in range(2):
        scales = []
        for photo, image in zip(photos, images, strict=True):
            rows = unit_loop(photo.astype(np.float64)).reshape(-1, photo.shape[-1])
            # ½ (1 - cos) is a quarter of the squared distance of unit vectors.
            scales.append(0.25 * nearest_loop(unit_loop(image[number].astype(np.float64)), rows))
        mean = (harmonic_loop(scales[0], 2) + harmonic_loop(scales[1], 3) + scales[2]) / 3
        np.testing.assert_allclose(numpy_array(compared.for_map)[number], mean, atol=1e-5)
        expected = words.map[number] + enlarged(mean, (24, 28))
        np.testing.assert_allclose(numpy_array(joined.map)[number], expected, atol=1e-5)
        assert float(numpy_array(joined.score)[number]) == pytest.approx(
            (words.score[number] + mean.max()) / 2, abs=1e-5
        )


def test_a_photograph_that_was_taught_leaves_words_alone(make: Any) -> None:
    levels = [make(level) for level in grids(*SHAPES)]
    method = create_reference("winclip+")
    compared = method.compare(method.describe(levels), method.remember(method.describe(levels), OWNERS, 0))
    mean = numpy_array(compared.for_map)
    assert np.isfinite(mean).all()
    assert 0 <= mean.min() <= mean.max() <= 1e-6


def test_spreading_keeps_a_constant_and_takes_the_floor(make: Any) -> None:
    same = make(np.full((1, 4, 3), 0.25, np.float32))
    np.testing.assert_allclose(numpy_array(spread(same, (6, 5))), 0.25, rtol=1e-5)
    zero = make(np.zeros((1, 4, 3), np.float32))
    np.testing.assert_allclose(numpy_array(spread(zero, (5, 4))), 1e-6, rtol=1e-4)


def test_its_words_are_winclips() -> None:
    method = create_reference("winclip+")
    assert (method.words, method.uses_words, method.depths) == ("winclip", True, ())
