"""Resizing and normalising: the published arithmetic; target sizes; keys of content."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from anomalens.errors import ConfigError, InputError
from anomalens.images.content import content_key
from anomalens.images.preprocessing import Preprocess, preprocess

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
RGB = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_preprocess_is_the_published_arithmetic(interpolation: Any) -> None:
    settings = Preprocess(16, MEAN, STD, interpolation=interpolation, multiple=8)
    resample = Image.Resampling[interpolation.upper()]
    resized = torch.from_numpy(np.array(Image.fromarray(RGB).resize((16, 16), resample))).permute(2, 0, 1)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    expected = (resized.float() / 255 - mean) / std
    normalised = preprocess(RGB, settings)
    assert normalised.dtype == np.float32
    assert normalised.flags.c_contiguous
    np.testing.assert_array_equal(normalised, expected.numpy())


@pytest.mark.parametrize(
    ("geometry", "multiple", "source", "target"),
    [
        ("squash", 16, (100, 300), (240, 240)),
        ("squash", 16, (1, 1), (240, 240)),
        ("shorter-side", 1, (100, 333), (240, 799)),
        ("shorter-side", 1, (333, 100), (799, 240)),
        ("shorter-side", 16, (100, 333), (240, 800)),
        ("shorter-side", 16, (100, 101), (240, 240)),
        ("shorter-side", 16, (50, 50), (240, 240)),
    ],
)
def test_target_size(geometry: Any, multiple: int, source: tuple[int, int], target: tuple[int, int]) -> None:
    settings = Preprocess(240, MEAN, STD, geometry=geometry, multiple=multiple)
    assert settings.target(*source) == target
    assert preprocess(np.zeros((*source, 3), np.uint8), settings).shape == (3, *target)


def test_extreme_aspect_is_refused_where_it_would_explode() -> None:
    with pytest.raises(InputError, match="more than 64 times"):
        Preprocess(240, MEAN, STD, geometry="shorter-side").target(1, 1_000)
    assert Preprocess(240, MEAN, STD).target(1, 1_000) == (240, 240)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"interpolation": "nearest"}, "bicubic"),
        ({"geometry": "crop"}, "squash"),
        ({"size": 0}, "at least 1"),
        ({"multiple": 0}, "at least 1"),
        ({"size": 500, "multiple": 14}, "use 490 or 504"),
        ({"size": 5, "multiple": 14}, "use 14 or 28"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (0.5,)}, "3 values"),
    ],
)
def test_bad_preprocess(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Preprocess(**{"size": 224, "mean": MEAN, "std": STD, **options})


def test_content_key_is_stable_and_tells_images_apart() -> None:
    key = content_key(np.arange(12, dtype=np.uint8).reshape(2, 2, 3))
    assert key == 5700266444054600116  # scores of anoclip+ depend on this value
    assert content_key(np.asfortranarray(RGB)) == content_key(RGB.copy())
    changed = RGB.copy()
    changed[0, 0, 0] ^= 1
    flat = RGB.reshape(8, 6, 3)
    assert len({content_key(rgb) for rgb in (RGB, changed, flat)}) == 3


def test_content_key_of_normalised_pixels() -> None:
    values = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 2, 2)
    assert content_key(values) == content_key(np.asfortranarray(values))
    assert len({content_key(values), content_key(values.astype(np.float64)), content_key(values + 1)}) == 3
