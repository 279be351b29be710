"""Make a map from a grid of patch values: upsampling, 3 x 3 mean, Gaussian blur and the merging of tiles as matrices.

All four are linear and separable, so a chain of them is two small matrices made once for each size:

    map = K_h a K_wᵀ,    K = G U M        M: 3-tap mean (optional), U: upsampling, G: Gaussian blur (optional)

The matrix of a filter is what the filter does to the identity; the filters themselves are PyTorch's and SciPy's, in
float64. Matrices are cached by sizes, dtype and device.

Shapes: h w patch grid, H W pixels, T tiles along a side.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.resampling import is_open, linear, mirrored
from anomalens.errors import ConfigError
from anomalens.methods.parts.smoothing import smoothed

Operators = tuple[Tensor, Tensor]
"""K_h [H, h] and K_w [W, w]."""

_CPU = torch.device("cpu")


def enlarge(
    values: Tensor, size: tuple[int, int], sigma: float = 0.0, *, align_corners: bool = False, mean3: bool = False
) -> Tensor:
    """Smooth, upsample and blur maps: [..., h, w] -> [..., *size]; see `resampler`."""
    rows, columns = operators(values, size, sigma=sigma, align_corners=align_corners, mean3=mean3)
    return apply(rows, values, columns)


def operators(values: Tensor, size: tuple[int, int], **how: Any) -> Operators:
    """Return the matrices that take `values` [..., h, w] to `size`; `how` goes to `resampler`."""
    height, width = (
        resampler(source, target, dtype=values.dtype, device=values.device, **how)
        for source, target in zip(values.shape[-2:], size, strict=True)
    )
    return height, width


def apply(rows: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """Compute K_h a K_wᵀ: `rows` [H, h], `values` [..., h, w], `columns` [W, w] -> [..., H, W]."""
    if is_open(rows.shape[0]):
        # Not every runtime multiplies open shapes of unequal rank.
        leading = (1,) * (values.dim() - 2)
        rows, columns = rows.view(*leading, *rows.shape), columns.view(*leading, *columns.shape)
    return rows @ values @ columns.mT


def resampler(
    source: int,
    target: int,
    *,
    align_corners: bool = False,
    mean3: bool = False,
    sigma: float = 0.0,
    dtype: torch.dtype = torch.float32,
    device: torch.device = _CPU,
) -> Tensor:
    """Return one side of a map operator, K = G U M: [target, source], rows sum to 1. Do not change it in place.

    Args:
        source, target: lengths in patches and in pixels.
        align_corners: whether the centres of the corner patches land on the corner pixels.
        mean3: average each value with its two neighbours first, borders replicated.
        sigma: standard deviation of the Gaussian blur behind the bilinear U, in target pixels; cut at 4 sigma, borders
            mirrored; 0 leaves it out. Shrinking is not filtered otherwise.
    """
    if is_open(source, target):
        return _by_formula(source, target, align_corners, mean3, sigma)
    return _resampler(source, target, align_corners, mean3, sigma, dtype, device)


@lru_cache(maxsize=128)
def _resampler(
    source: int,
    target: int,
    align_corners: bool,
    mean3: bool,
    sigma: float,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    matrix = _bilinear(source, target, align_corners)
    if mean3:
        matrix = matrix @ _mean3(source)
    if sigma:
        matrix = torch.from_numpy(smoothed(matrix.numpy(), sigma))
    return _place(matrix, dtype, device)


def _by_formula(source: int, target: int, align_corners: bool, mean3: bool, sigma: float) -> Tensor:
    """Return the matrix of a size that is not known yet, float32."""
    if sigma:
        read, weights = mirrored(target, sigma)
        matrix = (weights.unsqueeze(-1) * linear(source, target, read, align_corners=align_corners)).sum(dim=1)
    else:
        matrix = linear(source, target, align_corners=align_corners)
    if mean3:
        place = torch.arange(source)
        last = torch.scalar_tensor(source - 1, dtype=place.dtype)
        near = [(place + step).clamp(min=0).minimum(last).unsqueeze(-1) == place for step in (-1, 0, 1)]
        matrix = matrix @ (torch.stack(near).float().sum(dim=0) / 3)
    return matrix


def tile_starts(extent: int, side: int) -> tuple[int, ...]:
    """Return the first pixels of ceil(extent / side) tiles of `side` pixels, evenly spaced from end to end.

    Up to twice the side these are the left and the right tile of AnoCLIP's VisA script; longer images, of which that
    script leaves a strip uncovered, get more tiles. Raises ConfigError where not even one tile fits.
    """
    if extent < side:
        raise ConfigError(f"{extent} pixels do not hold a tile of {side}: the shorter side must be the tile's side")
    last = -(-extent // side) - 1
    return tuple(round(tile * (extent - side) / last) for tile in range(last + 1)) if last else (0,)


@lru_cache(maxsize=128)
def tile_merger(
    source: int,
    side: int,
    extent: int,
    target: int | None = None,
    *,
    mean3: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device = _CPU,
) -> Tensor:
    """Return one side of a map operator over tiles laid side by side: [target, T * source], rows sum to 1.

    Every tile of `source` patches is smoothed (`mean3`) and upsampled to `side` pixels with aligned corners, then
    pixels where tiles overlap take their mean, then `extent` pixels are resampled to `target` (None: kept).
    """
    starts = tile_starts(extent, side)
    upsampled = _bilinear(source, side, align_corners=True)
    if mean3:
        upsampled = upsampled @ _mean3(source)
    merged = torch.zeros(extent, len(starts) * source, dtype=torch.float64)
    coverage = torch.zeros(extent, 1, dtype=torch.float64)
    for tile, start in enumerate(starts):
        merged[start : start + side, tile * source : (tile + 1) * source] = upsampled
        coverage[start : start + side] += 1
    merged = merged / coverage
    if target not in (None, extent):
        merged = _bilinear(extent, target, align_corners=True) @ merged
    return _place(merged, dtype, device)


def _bilinear(source: int, target: int, align_corners: bool) -> Tensor:
    identity = torch.eye(source, dtype=torch.float64).unsqueeze(0)
    return F.interpolate(identity, target, mode="linear", align_corners=align_corners)[0].T


def _mean3(size: int) -> Tensor:
    one = torch.eye(size, dtype=torch.float64)
    return (one + torch.cat((one[:1], one[:-1])) + torch.cat((one[1:], one[-1:]))) / 3


def _place(matrix: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A cached tensor may be made while detecting and used while training: it must not be an inference tensor.
    with torch.inference_mode(False):
        return matrix.clone().to(device=device, dtype=dtype).contiguous()
