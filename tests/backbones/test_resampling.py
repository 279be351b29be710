"""Matrices by formula against the library functions they stand for."""

import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from anomalens.backbones.resampling import cubic, cubic_unfiltered, is_open, linear, mirrored
from anomalens.methods.parts import upsampling as maps

SIZES = [(4, 64), (14, 28), (28, 448), (28, 14), (24, 37), (37, 24), (5, 5)]


def interpolated(source: int, target: int, **options: object) -> torch.Tensor:
    identity = torch.eye(source).view(1, source, source, 1).repeat(1, 1, 1, 8)  # one channel a source place
    resized = F.interpolate(identity, (target, 8), **options)  # type: ignore[arg-type]
    return resized[0, :, :, 4].T


@pytest.mark.parametrize(("source", "target"), SIZES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_linear(source: int, target: int, align_corners: bool) -> None:
    want = interpolated(source, target, mode="bilinear", align_corners=align_corners)
    assert torch.allclose(linear(source, target, align_corners=align_corners), want, atol=1e-5)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_cubic(source: int, target: int) -> None:
    want = interpolated(source, target, mode="bicubic", align_corners=False, antialias=True)
    assert torch.allclose(cubic(source, target), want, atol=1e-5)


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_cubic_unfiltered(source: int, target: int) -> None:
    want = interpolated(source, target, mode="bicubic", align_corners=False)
    assert torch.allclose(cubic_unfiltered(source, target), want, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
@pytest.mark.parametrize("mean3", [False, True])
def test_map_operators_by_formula(sigma: float, mean3: bool) -> None:
    for align_corners in (False, True):
        want = maps.resampler(7, 112, align_corners=align_corners, mean3=mean3, sigma=sigma)
        assert torch.allclose(maps._by_formula(7, 112, align_corners, mean3, sigma), want, atol=1e-5)


def test_mirrored_gaussian() -> None:
    read, weights = mirrored(40, 2.0)
    values = torch.rand(40, generator=torch.Generator().manual_seed(0)).double()
    want = ndimage.gaussian_filter1d(values.numpy(), 2.0, mode="reflect", truncate=4)
    assert torch.allclose((values[read.long()] * weights).sum(dim=1), torch.from_numpy(want), atol=1e-6)


def test_known_lengths_are_not_open() -> None:
    assert not is_open(3, 448)
