"""The subspace against scikit-learn, and what happens at the edges of its rank."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from anomalens.errors import ConfigError, InputError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.parts.subspace import fit_subspace


def rows(count: int, channels: int = 12, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, channels)) * np.linspace(3, 0.2, channels) + 1).astype(np.float32)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_residuals_equal_those_of_scikit_learn(make: Any, share: float) -> None:
    train, test = rows(300), rows(40, seed=1)
    model = PCA(share, svd_solver="full").fit(train.astype(np.float64))
    expected = ((test - model.inverse_transform(model.transform(test.astype(np.float64)))) ** 2).sum(1)
    subspace = fit_subspace(make(train), share)
    assert subspace.basis.shape[1] == model.n_components_
    np.testing.assert_allclose(numpy_array(subspace.residual(make(test))), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        np.abs(numpy_array(subspace.project(make(test)))),
        np.abs(model.transform(test.astype(np.float64))),
        rtol=1e-3,
        atol=1e-3,
    )


def test_few_patches_never_explain_themselves_wholly(make: Any) -> None:
    few = rows(5, 64)
    subspace = fit_subspace(make(few), 0.9999)
    assert subspace.basis.shape[1] == 3  # five points span four directions
    assert numpy_array(subspace.residual(make(few))).max() > 1e-3


def test_equal_patches_leave_the_mean_alone(make: Any) -> None:
    same = np.ones((7, 4), np.float32)
    subspace = fit_subspace(make(same), 0.9)
    assert subspace.basis.shape == (4, 0)
    np.testing.assert_allclose(numpy_array(subspace.residual(make(same + 1))), 4.0)
    assert fit_subspace(make(same[:1]), 0.9).basis.shape == (4, 0)


def test_a_limit_keeps_the_directions_of_largest_variance(make: Any) -> None:
    wide, narrow = (fit_subspace(make(rows(200)), 0.99, most) for most in (None, 2))
    np.testing.assert_array_equal(numpy_array(narrow.basis), numpy_array(wide.basis)[:, :2])


def test_float64_survives_a_large_mean(make: Any) -> None:
    shifted = rows(400, 6) * 0.01 + 1000
    residual = numpy_array(fit_subspace(make(shifted), 0.9).residual(make(shifted)))
    assert residual.max() < 0.01


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        fit_subspace(rows(5), 1.0)
    with pytest.raises(InputError, match="no patches"):
        fit_subspace(rows(5)[:0])
