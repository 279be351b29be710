"""Check the layers that are laid over a photo elsewhere: they make the same picture as the overlay."""

import numpy as np
from PIL import Image

from anomalens.images.overlay import draw_heat_layer, draw_outline, draw_overlay

RANGE = (0.0, 1.0)


def test_photo_and_layers_together_are_the_overlay() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (60, 80, 3), np.uint8)
    values = rng.random((6, 8)).astype(np.float32)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    expected = np.asarray(draw_overlay(rgb, values, RANGE, mask, 0.6)).astype(int)

    picture = Image.fromarray(rgb).convert("RGBA")
    picture.alpha_composite(draw_heat_layer(values, RANGE, (60, 80)))
    picture.alpha_composite(draw_outline(mask))
    assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - expected).max() <= 1


def test_a_layer_is_drawn_at_the_size_asked_for_and_clear_where_nothing_is() -> None:
    layer = np.asarray(draw_heat_layer(np.zeros((4, 4), np.float32), RANGE, (30, 50)))
    assert layer.shape == (30, 50, 4)
    assert not layer[..., 3].any()
    assert not np.asarray(draw_outline(np.zeros((10, 12), bool)))[..., 3].any()
