"""SubspaceAD against scikit-learn's principal components."""

from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA

from anomalens.errors import ConfigError
from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.references.reference_method import Words, create_reference, taps_at
from patch_grids import blurred_loop, grids

OWNERS = np.array([0, 0, 1])
NO_WORDS = Words(np.zeros(2, np.float32), np.zeros((2, 60, 60), np.float32))


def test_residuals_map_and_score_equal_scikit_learn(make: Any) -> None:
    photos, images = (grids((15, 15, 12), (15, 15, 12), images=count, seed=count) for count in (3, 2))
    method = create_reference("subspacead", variance=0.8)
    remembered = method.remember(method.describe([make(level) for level in photos]), OWNERS, 0)
    compared = method.compare(method.describe([make(level) for level in images]), remembered)
    joined = method.join(compared, NO_WORDS, {})

    train, test = ((first.astype(np.float64) + second) / 2 for first, second in (photos, images))
    model = PCA(0.8, svd_solver="full").fit(train.reshape(-1, 12))
    assert remembered.basis.shape == (12, model.n_components_)
    flat = test.reshape(-1, 12)
    residuals = ((flat - model.inverse_transform(model.transform(flat))) ** 2).sum(1).reshape(2, 15, 15)
    for number in range(2):
        # 4 pixels of an image of 672: 15 patches of 15 pixels are 225 pixels.
        blurred = blurred_loop(residuals[number], 15, 4 * 225 / 672)
        np.testing.assert_allclose(numpy_array(joined.map)[number], blurred, rtol=1e-3, atol=1e-4)
        assert float(numpy_array(joined.score)[number]) == pytest.approx(np.sort(blurred.ravel())[-2:].mean(), rel=1e-3)


def test_few_patches_never_explain_themselves_wholly(make: Any) -> None:
    """Fewer patches than channels: the rank is theirs, and residuals of photographs are above 0."""
    (photos,) = grids((2, 3, 64))
    method = create_reference("subspacead")
    descriptors = method.describe([make(photos)])
    remembered = method.remember(descriptors, OWNERS, 0)
    assert 0 < remembered.basis.shape[1] < 17
    assert numpy_array(method.compare(descriptors, remembered).for_score).max() > 1e-3


def test_levels_of_different_shapes_are_joined_on_the_middle_grid() -> None:
    (joined,) = create_reference("subspacead").describe(grids((8, 8, 3), (4, 4, 5), (2, 2, 7)))
    assert joined.shape == (3, 4, 4, 15)
    np.testing.assert_allclose(np.linalg.norm(joined, axis=-1), 1, atol=1e-5)


def test_the_papers_blocks_are_read() -> None:
    """Hidden states -18 to -12 of 41, the first of which lies before all blocks."""
    depths = create_reference("subspacead").depths
    assert taps_at(40, depths) == (23, 24, 25, 26, 27, 28, 29)
    assert taps_at(12, depths) == (6, 7, 7, 7, 8, 8, 8)


def test_a_share_of_all_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"variance 1\.0"):
        create_reference("subspacead", variance=1.0)
