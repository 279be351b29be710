"""Photographs that cannot be judged are told by their pixels, and by the good photographs."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from anomalens.decision.capture import Capture, CaptureLimits, measure_capture, why_unusable


def photo(seed: int = 0, size: tuple[int, int] = (300, 400)) -> np.ndarray:
    """Return a picture with edges, shades and a little noise, as a photograph has them."""
    random = np.random.default_rng(seed)
    values = np.tile(np.linspace(60, 160, size[1]), (size[0], 1))
    values[80:200, 100:260] += 60
    values[130:150, 40:90] -= 40
    values = values[..., None] + random.normal(0, 3, (*size, 3))
    return values.clip(0, 255).astype(np.uint8)


def blurred(rgb: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma)))


BLANK = {
    "black": (np.zeros((120, 160, 3), np.uint8), "black"),
    "nearly black": (np.full((120, 160, 3), 2, np.uint8), "black"),
    "white": (np.full((120, 160, 3), 255, np.uint8), "white"),
    "grey": (np.full((120, 160, 3), 128, np.uint8), "uniform"),
    "blue": (np.full((120, 160, 3), (30, 60, 200), np.uint8), "uniform"),
    "one twelfth of the light": ((photo() / 12).astype(np.uint8), "far too dark"),
    "out of focus": (blurred(photo(), 10), "blurred"),
    "one pixel": (np.full((1, 1, 3), 77, np.uint8), "uniform"),
}


@pytest.mark.parametrize("name", BLANK)
def test_what_pixels_alone_tell(name: str) -> None:
    rgb, reason = BLANK[name]
    assert reason in str(why_unusable(measure_capture(rgb)))


@pytest.mark.parametrize("rgb", [photo(), photo(1, (60, 90)), photo(2, (1200, 2000)), np.flip(photo(), 1)])
def test_a_photograph_can_be_judged(rgb: np.ndarray) -> None:
    assert why_unusable(measure_capture(rgb)) is None


def test_what_good_photographs_tell() -> None:
    captures = [measure_capture(photo(seed)) for seed in range(4)]
    limits = CaptureLimits.of(captures)
    assert why_unusable(measure_capture(photo(9)), limits, unlike=0.9) is None
    assert "something else" in str(why_unusable(captures[0], limits, unlike=1.1))
    assert "darker" in str(why_unusable(measure_capture(photo() // 2), limits))
    assert "less sharp" in str(why_unusable(replace(captures[0], sharpness=captures[0].sharpness - 1), limits))
    assert "noisier" in str(why_unusable(replace(captures[0], sharpness=captures[0].sharpness + 1), limits))


def test_one_photograph_has_the_least_limits() -> None:
    capture: Capture = measure_capture(photo())
    assert CaptureLimits.of([capture]) == CaptureLimits(capture.brightness, 40, capture.sharpness, 0.8)
