"""Compute interpolation matrices by formula, for graphs whose size is not known when they are made.

What `torch.nn.functional.interpolate` does along one side is a matrix [target, source] whose rows sum to 1; written as
a function of its indices it needs no more than ranges, which every runtime has and computes alike.
"""

import torch
from torch import Tensor


def is_open(*lengths: int) -> bool:
    """Return whether a length is left open, as it is only while a graph of any size is made."""
    return any(isinstance(length, torch.SymInt) for length in lengths)


def linear(source: int, target: int, at: Tensor | None = None, *, align_corners: bool = False) -> Tensor:
    """Return bilinear weights along one side, not filtered when it shrinks: [target, source], or [..., source] at the
    targets `at`."""
    at = torch.arange(target).float() if at is None else at
    position = at * (source - 1) / (target - 1) if align_corners else (at + 0.5) * source / target - 0.5
    position = position.clamp(min=0).minimum(torch.scalar_tensor(source - 1))
    return (1 - (position.unsqueeze(-1) - torch.arange(source)).abs()).clamp(min=0)


def cubic(source: int, target: int) -> Tensor:
    """Return bicubic weights along one side, coefficient -½, antialiased when it shrinks: [target, source]."""
    scale = torch.scalar_tensor(source) / torch.scalar_tensor(target)
    centre = (torch.arange(target) + 0.5) * scale
    x = ((torch.arange(source) + 0.5 - centre.unsqueeze(-1)) / scale.clamp(min=1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return weights / weights.sum(dim=-1, keepdim=True)


def cubic_unfiltered(source: int, target: int) -> Tensor:
    """Return bicubic weights along one side, coefficient -¾, not filtered when it shrinks, borders repeated:
    [target, source]."""
    position = (torch.arange(target) + 0.5) * source / target - 0.5
    below, places = position.floor(), torch.arange(source)
    weights = torch.zeros(target, source)
    for tap in range(-1, 3):
        x = (position - below - tap).abs()
        near = (1.25 * x - 2.25) * x * x + 1
        far = ((-0.75 * x + 3.75) * x - 6) * x + 3
        read = (below + tap).clamp(min=0).minimum(torch.scalar_tensor(source - 1)).unsqueeze(-1)
        weights = weights + torch.where(x <= 1, near, far).unsqueeze(-1) * (read == places)
    return weights


def mirrored(target: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return a Gaussian along one side, cut at 4 sigma, borders mirrored: the source positions that each target reads
    [target, taps] as floats, and their weights [taps]. The side must be longer than the taps."""
    radius = int(4 * sigma + 0.5)
    taps = torch.arange(-radius, radius + 1).float()
    read = torch.arange(target).float().unsqueeze(-1) + taps
    read = torch.where(read < 0, -1 - read, read)
    last = torch.scalar_tensor(target - 1).float()
    return torch.where(read > last, 2 * last + 1 - read, read), (-0.5 * (taps / sigma).square()).softmax(dim=0)
