"""Map operators: each matrix against the filter it stands for."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from anomalens.errors import ConfigError
from anomalens.methods.parts import upsampling as maps


def values(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(("h", "w", "height", "width"), [(15, 15, 240, 240), (7, 9, 50, 31), (1, 2, 6, 7)])
def test_upsampling(h: int, w: int, height: int, width: int, align_corners: bool) -> None:
    a = values(2, h, w)
    rows = maps.resampler(h, height, align_corners=align_corners)
    columns = maps.resampler(w, width, align_corners=align_corners)
    # The reference in float64: in float32 its interpolation weights alone are off by 1e-6.
    exact = F.interpolate(a[:, None].double(), (height, width), mode="bilinear", align_corners=align_corners)[:, 0]
    torch.testing.assert_close(maps.apply(rows, a, columns), exact.float(), rtol=0, atol=1e-6)


def test_three_by_three_mean_replicates_the_border() -> None:
    a = values(2, 15, 12)
    resampled = maps.apply(maps.resampler(15, 15, mean3=True), a, maps.resampler(12, 12, mean3=True))
    expected = F.avg_pool2d(F.pad(a[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    torch.testing.assert_close(resampled, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.6, 4.0, 8.0])
def test_blur_is_scipys_even_where_it_is_wider_than_the_map(sigma: float) -> None:
    a = values(5, 6)
    resampled = maps.apply(maps.resampler(5, 23, sigma=sigma), a, maps.resampler(6, 40, sigma=sigma))
    up = F.interpolate(a[None, None], (23, 40), mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(resampled.numpy(), ndimage.gaussian_filter(up.numpy(), sigma), rtol=0, atol=1e-6)


def test_the_composed_operator_is_the_chain_of_filters() -> None:
    a = values(15, 15)
    k = maps.resampler(15, 60, align_corners=True, mean3=True, sigma=2.0)
    mean = F.avg_pool2d(F.pad(a[None, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    up = F.interpolate(mean, (60, 60), mode="bilinear", align_corners=True)[0, 0]
    np.testing.assert_allclose(maps.apply(k, a, k), ndimage.gaussian_filter(up.numpy(), 2.0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"mean3": True}, {"sigma": 3.0}, {"align_corners": True, "mean3": True}])
def test_a_constant_grid_stays_constant(options: dict[str, Any]) -> None:
    k = maps.resampler(15, 97, **options)
    torch.testing.assert_close(maps.apply(k, torch.full((15, 15), 0.3), k), torch.full((97, 97), 0.3))


def test_a_ramp_keeps_its_corners_when_corners_are_aligned() -> None:
    ramp = torch.arange(15.0).expand(15, 15) + 15 * torch.arange(15.0)[:, None]
    k = maps.resampler(15, 240, align_corners=True)
    resampled = maps.apply(k, ramp, k)
    torch.testing.assert_close(resampled[[0, 0, -1, -1], [0, -1, 0, -1]], ramp[[0, 0, -1, -1], [0, -1, 0, -1]])


def test_matrices_are_cached_per_dtype_and_usable_in_training_after_detection() -> None:
    with torch.inference_mode():
        k = maps.resampler(4, 21)
    assert maps.resampler(4, 21) is k
    assert maps.resampler(4, 21, dtype=torch.float64).dtype == torch.float64
    leaf = torch.ones(4, 4, requires_grad=True)
    maps.apply(k, leaf, k).sum().backward()
    assert leaf.grad is not None


def test_tiles_cover_any_length_evenly() -> None:
    assert maps.tile_starts(240, 240) == (0,)
    assert maps.tile_starts(300, 240) == (0, 60)
    assert maps.tile_starts(480, 240) == (0, 240)
    assert maps.tile_starts(481, 240) == (0, 120, 241)  # 120.5 rounds to even
    for extent in range(10, 95, 7):
        covered = np.zeros(extent, dtype=int)
        for start in maps.tile_starts(extent, 10):
            covered[start : start + 10] += 1
        assert covered.min() >= 1
    with pytest.raises(ConfigError, match="do not hold a tile"):
        maps.tile_starts(239, 240)


@pytest.mark.parametrize("mean3", [False, True])
def test_merging_takes_the_mean_where_two_tiles_overlap(mean3: bool) -> None:
    tiles = values(2, 15, 15)
    side, extent = 240, 300
    up = maps.resampler(15, side, align_corners=True, mean3=mean3)
    left, right = (maps.apply(up, tile, up) for tile in tiles)
    expected = torch.zeros(side, extent)
    expected[:, :60], expected[:, 240:] = left[:, :60], right[:, -60:]
    expected[:, 60:240] = (left[:, 60:] + right[:, :180]) / 2
    columns = maps.tile_merger(15, side, extent, mean3=mean3)
    merged = maps.apply(up, torch.cat([tiles[0], tiles[1]], dim=1), columns)
    torch.testing.assert_close(merged, expected, rtol=0, atol=1e-6)


def test_merging_resamples_to_the_size_asked() -> None:
    merged = maps.tile_merger(5, 20, 33)
    resized = maps.tile_merger(5, 20, 33, 70)
    torch.testing.assert_close(resized, maps.resampler(33, 70, align_corners=True) @ merged)
    torch.testing.assert_close(maps.tile_merger(5, 20, 20, 41).sum(dim=1), torch.ones(41))
