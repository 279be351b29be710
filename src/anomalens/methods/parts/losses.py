"""Compute the losses of prompt learning: focal and Dice on anomaly maps, exactly as published, and cheaper.

With p the probability "abnormal" of a pixel, y its label and q = p where y = 1, 1 - p elsewhere (ε = 1e-5):

    focal   mean over pixels of -(1 - r)² ln r,   r = (1 - ε) q + ε (1 - q) + ε        (γ = 2, no class weight)
    dice    mean over images of 1 - (2 Σ p y + 1) / (Σ p + Σ y + 1)

The published code evaluates both on maps upsampled to the input (268,324 pixels at 518). The same numbers come from the
patch grid:

* nearest upsampling (Crane): every patch is one value and a count n of anomalous pixels among its `cell` pixels, so
  focal weighs the two labels by n and cell - n, and Σ p y = Σ_j p_j n_j. Exact, 196 times fewer elements.
* bilinear upsampling P = U p Vᵀ (AnomalyCLIP): Σ P y = Σ p ∘ (Uᵀ y V) and Σ P = Σ p ∘ (Uᵀ1)(1ᵀV), so Dice never sees
  a pixel; focal is not linear in P and is taken at the pixels.

Sources: AnomalyCLIP (arXiv 2310.18961) section 3.3 and code 45ed4dd; Crane (arXiv 2504.11055), code 39181f9; APRIL-GAN
(arXiv 2305.17382), code f13b8a6. Focal: Lin et al. 2017; Dice: Milletari et al. 2016.

Shapes: B images, H W pixels, h w patch grid, N = h*w.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from anomalens.errors import ConfigError

# ε of the published focal loss, label smoothing and offset at once.
_SMOOTH = 1e-5


@dataclass
class Loss:
    """Hold a training loss: the scalar to minimise, and by name the scalars that were weighed into it."""

    total: Tensor
    parts: dict[str, Tensor]


def _focal(q: Tensor) -> Tensor:
    """Compute -(1 - r)² ln r of the probability given to the true class, any shape."""
    r = (1 - _SMOOTH) * q + _SMOOTH * (1 - q) + _SMOOTH
    return -((1 - r).square()) * r.log()


def focal(p: Tensor, target: Tensor) -> Tensor:
    """Compute the focal loss of probabilities in [0, 1] against a binary target of the same shape; mean of all."""
    return _focal(torch.where(target > 0.5, p, 1 - p)).mean()


def focal_cells(p: Tensor, counts: Tensor, cell: int) -> Tensor:
    """Compute `focal` of nearest upsampling from the patch grid.

    Args:
        p: [B, N] probabilities of the patches.
        counts: [B, N] anomalous pixels of each patch, from `patch_counts`.
        cell: pixels a patch has.
    """
    return (counts * _focal(p) + (cell - counts) * _focal(1 - p)).sum() / (cell * p.numel())


@dataclass
class Overlap:
    """Hold the sums a Dice loss is made of, [B] each."""

    # Σ p y.
    both: Tensor
    # Σ p.
    p: Tensor
    # Σ y.
    y: Tensor
    # Pixels of an image.
    area: int

    def complement(self) -> "Overlap":
        """Return the sums for 1 - p against 1 - y: Dice of the normal channel needs no further pass."""
        both = self.area - self.p - self.y + self.both
        return Overlap(both, self.area - self.p, self.area - self.y, self.area)

    def dice(self) -> Tensor:
        """Return the mean over images of 1 - (2 Σ p y + 1) / (Σ p + Σ y + 1)."""
        return (1 - (2 * self.both + 1) / (self.p + self.y + 1)).mean()


def overlap(p: Tensor, target: Tensor) -> Overlap:
    """Sum over the pixels of `p` and `target`, both [B, H, W]."""
    return Overlap((p * target).sum((1, 2)), p.sum((1, 2)), target.sum((1, 2)), target[0].numel())


def overlap_cells(p: Tensor, counts: Tensor, cell: int) -> Overlap:
    """Compute `overlap` of nearest upsampling from the patch grid; arguments as `focal_cells`."""
    return Overlap((p * counts).sum(1), cell * p.sum(1), counts.sum(1), cell * p.shape[1])


def overlap_separable(p: Tensor, target: Tensor, rows: Tensor, columns: Tensor) -> Overlap:
    """Compute `overlap` of a linear upsampling rows · p · columnsᵀ, on the patch grid.

    Args:
        p: [B, h, w] probabilities of the patches.
        target: [B, H, W] binary.
        rows, columns: [H, h] and [W, w], the upsampling of either axis.
    """
    gathered = rows.T @ target @ columns  # the mask as the patches see it: [B, h, w]
    share = rows.sum(0)[:, None] * columns.sum(0)
    return Overlap((p * gathered).sum((1, 2)), (p * share).sum((1, 2)), target.sum((1, 2)), target[0].numel())


def patch_counts(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Count the anomalous pixels of every patch: binary masks [B, H, W] -> [B, N], row-major.

    Raises ConfigError where the sides are no multiples of the grid: nearest upsampling would not be a replication.
    """
    height, width = masks.shape[-2:]
    if height % grid[0] or width % grid[1]:
        raise ConfigError(f"masks of {width} x {height} pixels do not divide into a grid of {grid[1]} x {grid[0]}")
    cells = masks.reshape(masks.shape[0], grid[0], height // grid[0], grid[1], width // grid[1])
    return cells.sum((2, 4)).flatten(1)
