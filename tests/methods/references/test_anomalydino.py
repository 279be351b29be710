"""AnomalyDINO against plain loops, and its foreground mask."""

from typing import Any

import numpy as np
import pytest

from anomalens.methods.parts.array_namespace import numpy_array
from anomalens.methods.references.anomalydino import foreground
from anomalens.methods.references.reference_method import Words, create_reference
from patch_grids import blurred_loop, grids, nearest_loop, unit_loop

OWNERS = np.array([0, 0, 1])
NO_WORDS = Words(np.zeros(2, np.float32), np.zeros((2, 60, 60), np.float32))


def run(make: Any, photos: np.ndarray, images: np.ndarray, **options: Any) -> Any:
    method = create_reference("anomalydino", **options)
    remembered = method.remember(method.describe([make(photos)]), OWNERS, 0)
    compared = method.compare(method.describe([make(images)]), remembered)
    return compared, method.join(compared, NO_WORDS, {})


def test_distances_map_and_score_equal_plain_loops(make: Any) -> None:
    (photos,), (images,) = grids((15, 15, 6)), grids((15, 15, 6), images=2, seed=1)
    compared, joined = run(make, photos, images, sigma=4.0)
    rows = unit_loop(photos.astype(np.float64)).reshape(-1, 6)
    for number, image in enumerate(images.astype(np.float64)):
        expected = 0.5 * nearest_loop(unit_loop(image), rows)
        np.testing.assert_allclose(numpy_array(compared.for_score)[number], expected, atol=1e-5)
        # 225 patches: the two largest.
        assert float(numpy_array(joined.score)[number]) == pytest.approx(
            np.sort(expected.ravel())[-2:].mean(), abs=1e-5
        )
        # 4 pixels of an image of 448: 15 patches of 15 pixels are 225 pixels.
        blurred = blurred_loop(expected, 15, 4 * 225 / 448)
        np.testing.assert_allclose(numpy_array(joined.map)[number], blurred, atol=1e-5)


def test_below_a_hundred_patches_the_largest_is_the_score(make: Any) -> None:
    (photos,), (images,) = grids((5, 6, 4)), grids((5, 6, 4), images=2, seed=1)
    compared, joined = run(make, photos, images)
    np.testing.assert_array_equal(numpy_array(joined.score), numpy_array(compared.for_score).reshape(2, -1).max(1))


def test_a_photograph_that_was_taught_scores_nothing(make: Any) -> None:
    (photos,) = grids((8, 8, 16))
    compared, joined = run(make, photos, photos[:2])
    assert not numpy_array(compared.for_score).any()
    assert not numpy_array(joined.score).any()
    assert not numpy_array(joined.map).any()


def test_the_middle_level_of_a_stem_and_the_only_one_of_a_tower_are_read() -> None:
    method = create_reference("anomalydino")
    levels = grids((8, 8, 3), (4, 4, 5), (2, 2, 7))
    assert method.describe(levels)[0].shape == (3, 4, 4, 5)
    np.testing.assert_array_equal(method.describe(levels)[0], method.describe(levels[1:2])[0])


def part_before_background(strength: float = 30.0) -> np.ndarray:
    """Return tokens [12, 12, 8] whose rows 3 to 8, columns 3 to 8 show a part, far along one direction."""
    tokens = np.random.default_rng(0).standard_normal((12, 12, 8)).astype(np.float32)
    tokens[3:9, 3:9] += strength * np.array([1, -1, 0, 2, 0, 0, 0, 0], np.float32)
    return tokens


@pytest.mark.parametrize("sign", [1, -1])
def test_the_foreground_is_the_part_and_a_margin_whatever_the_sign(sign: int) -> None:
    inside = foreground(sign * part_before_background(), 10.0)
    expected = np.zeros((12, 12), bool)
    expected[2:10, 2:10] = True
    np.testing.assert_array_equal(inside, expected)


def test_the_foreground_closes_holes_and_keeps_the_border() -> None:
    tokens = np.zeros((12, 12, 3), np.float32)
    tokens[:, :6, 0] = 50.0
    tokens[4, 2, 0] = 0.0
    inside = foreground(tokens, 10.0)
    assert inside[:, :7].all()
    assert not inside[:, 7:].any()


def test_a_threshold_beyond_all_patches_leaves_no_foreground() -> None:
    assert not foreground(part_before_background(), 1e6).any()


def test_a_mask_silences_what_lies_outside_of_the_part(make: Any) -> None:
    photos = np.stack([part_before_background()] * 3)
    images = photos[:2].copy()
    # A defect on the part and one beside it, both at right angles to everything.
    images[:, 5, 5] = images[:, 0, 11] = np.array([0, 0, 90, 0, 0, 0, 0, -90], np.float32)
    plain, _ = run(make, photos, images)
    masked, joined = run(make, photos, images, mask=True, mask_threshold=10.0)
    distances, silenced = (numpy_array(part.for_score) for part in (plain, masked))
    assert (distances[:, 0, 11] > 0.3).all()
    assert not silenced[:, 0, 11].any()
    np.testing.assert_allclose(silenced[:, 5, 5], distances[:, 5, 5], atol=1e-5)
    np.testing.assert_allclose(numpy_array(joined.score), silenced.reshape(2, -1).max(1), atol=1e-5)


def test_photographs_are_not_masked(make: Any) -> None:
    """The memory holds the background too: with and without a mask it has as many rows."""
    for mask in (False, True):
        method = create_reference("anomalydino", mask=mask)
        photos = make(np.stack([part_before_background()] * 3))
        assert method.remember(method.describe([photos]), OWNERS, 0).rows.shape[0] == 3 * 144
