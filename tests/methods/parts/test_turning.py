"""Turned copies of photographs, and the decision to use them."""

from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from anomalens.errors import ConfigError
from anomalens.methods.parts.neighbours import build_memory
from anomalens.methods.parts.patches import describe
from anomalens.methods.parts.turning import differ_by_turn, turn, turn_ratio, views, zoom


def picture(height: int = 9, width: int = 9) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_quarter_turns_are_exact_and_go_counter_clockwise() -> None:
    image = picture()
    for quarters in range(4):
        np.testing.assert_array_equal(turn(image, 90 * quarters), np.rot90(image, quarters))
    np.testing.assert_array_equal(turn(image, 360), image)
    wide = picture(5, 9)
    assert turn(wide, 90).shape == wide.shape
    np.testing.assert_array_equal(turn(wide, 180), wide[::-1, ::-1])


def test_other_turns_go_the_same_way_and_have_no_black_corners() -> None:
    ramp = np.zeros((33, 33, 3), np.uint8)
    ramp[2:6, 14:19] = 255  # above the middle; counter-clockwise it comes to the upper left
    turned = turn(ramp, 45)[..., 0]
    y, x = (axis.mean() for axis in np.nonzero(turned > 100))
    assert y < 12
    assert x < 12
    assert turn(np.full((16, 16, 3), 200, np.uint8), 33).min() == 200


def test_views_start_with_the_image_as_it_is() -> None:
    image = picture()
    copies = views(image, turns=4, mirrored=True)
    assert len(copies) == 8
    np.testing.assert_array_equal(copies[0], image)
    np.testing.assert_array_equal(copies[4], image[:, ::-1])
    with pytest.raises(ConfigError, match="at least 1"):
        views(image, turns=0)


def test_a_turned_photograph_is_known_where_turned_copies_are(make: Any) -> None:
    image = picture(8, 8)

    def patches(rgb: np.ndarray) -> Any:  # neighbourhoods of 2 x 2 pixels, order kept, so that turning matters
        blocks = rgb.reshape(4, 2, 4, 2, 3).transpose(0, 2, 1, 3, 4).reshape(1, 4, 4, 12)
        return describe([make(blocks.astype(np.float32))], (4, 4), window=1)

    turned = patches(turn(image, 90))
    plain = build_memory([patches(image)])
    augmented = build_memory([patches(np.concatenate([view])) for view in views(image, 4)])
    assert float(plain.distances(turned).mean()) > 0.01
    assert float(augmented.distances(turned).max()) == 0


def test_photographs_at_any_angle_are_told_from_aligned_ones(make: Any) -> None:
    rng = np.random.default_rng(0)
    poses = rng.standard_normal((4, 6, 8)).astype(np.float32)  # the look of one part at four angles
    poses /= np.linalg.norm(poses, axis=-1, keepdims=True)

    def seen(angle: int) -> np.ndarray:
        noisy: np.ndarray = poses[angle % 4] + rng.normal(0, 0.02, (6, 8)).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=-1, keepdims=True)
        return noisy

    for angles, answer in (((0, 0, 0), False), ((0, 1, 2), True)):
        plain = make(np.stack([seen(angle) for angle in angles]))
        turned = [make(np.stack([seen(angle + step) for step in (1, 2, 3)])) for angle in angles]
        assert differ_by_turn(plain, turned, tolerance=1.0) is answer
    assert turn_ratio(plain[:1], turned[:1]) is None
    assert differ_by_turn(plain[:1], turned[:1], 1.0) is False


@pytest.mark.parametrize("shape", [(48, 37), (1, 5), (5, 1), (2, 2)])
def test_pixels_move_as_by_scipys_transform(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    middle = (np.array(shape) - 1) / 2
    for degrees in (10, 45, 135, 200):
        angle = np.deg2rad(degrees)
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        for moved, step in ((turn(rgb, degrees), matrix), (zoom(rgb, 0.4), np.eye(2) / 0.4)):
            channels = [
                ndimage.affine_transform(
                    rgb[..., c].astype(np.float32), step, middle - step @ middle, order=1, mode="mirror"
                )
                for c in range(3)
            ]
            np.testing.assert_array_equal(moved, np.clip(np.stack(channels, -1).round(), 0, 255).astype(np.uint8))
