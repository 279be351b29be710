"""Blurring a matrix, against SciPy's filter."""

import numpy as np
import pytest
from scipy import ndimage

from anomalens.methods.parts.smoothing import smoothed


@pytest.mark.parametrize(("rows", "sigma"), [(448, 4.0), (518, 8.0), (37, 1.5), (7, 0.3), (3, 5.0), (1, 2.0)])
def test_a_blur_is_scipys(rows: int, sigma: float) -> None:
    values = np.random.default_rng(0).random((rows, 5))
    expected = ndimage.gaussian_filter1d(values, sigma, axis=0, mode="reflect", truncate=4)
    np.testing.assert_allclose(smoothed(values, sigma), expected, rtol=0, atol=1e-15)
