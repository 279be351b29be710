"""Losses against slow, literal forms of their formulas; patch-level forms against pixels."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import Tensor

from anomalens.errors import ConfigError
from anomalens.methods.parts.losses import (
    focal,
    focal_cells,
    overlap,
    overlap_cells,
    overlap_separable,
    patch_counts,
)


def literal_focal(p: np.ndarray, y: np.ndarray) -> float:
    """Return the published two-channel form: one-hot labels clamped to [ε, 1 - ε], p_t = Σ_c y_c p_c + ε."""
    eps = 1e-5
    onehot = np.clip(np.stack([1 - y, y]), eps, 1 - eps)
    pt = (onehot * np.stack([1 - p, p])).sum(0) + eps
    return float((-((1 - pt) ** 2) * np.log(pt)).mean())


def literal_dice(p: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean([1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, y, strict=True)]))


def example(seed: int, grid: tuple[int, int] = (3, 4), cell: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(2, *grid, generator=generator, dtype=torch.float64)
    mask = (torch.rand(2, grid[0] * cell, grid[1] * cell, generator=generator) > 0.7).double()
    mask[1] *= seed % 2  # an image without anomaly now and then
    return p, mask


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_pixels_equal_the_literal_formulas(seed: int) -> None:
    p, mask = example(seed, (6, 7), 1)
    sums = overlap(p, mask)
    assert focal(p, mask).item() == pytest.approx(literal_focal(p.numpy(), mask.numpy()), rel=1e-12)
    assert sums.dice().item() == pytest.approx(literal_dice(p.numpy(), mask.numpy()), rel=1e-12)
    complement = literal_dice(1 - p.numpy(), 1 - mask.numpy())
    assert sums.complement().dice().item() == pytest.approx(complement, rel=1e-10)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_cells_equal_nearest_upsampling(seed: int) -> None:
    p, mask = example(seed)
    big = F.interpolate(p[:, None], scale_factor=5, mode="nearest")[:, 0]
    counts = patch_counts(mask, (3, 4))
    torch.testing.assert_close(focal_cells(p.flatten(1), counts, 25), focal(big, mask))
    fine, coarse = overlap(big, mask), overlap_cells(p.flatten(1), counts, 25)
    torch.testing.assert_close(coarse.dice(), fine.dice())
    torch.testing.assert_close(coarse.complement().dice(), fine.complement().dice())


@pytest.mark.parametrize("align", [False, True])
def test_matrices_equal_bilinear_upsampling(align: bool) -> None:
    p, mask = example(1)
    rows, columns = (
        F.interpolate(torch.eye(n, dtype=p.dtype)[None], size=5 * n, mode="linear", align_corners=align)[0].T
        for n in (3, 4)
    )
    big = F.interpolate(p[:, None], size=mask.shape[1:], mode="bilinear", align_corners=align)[:, 0]
    fine, coarse = overlap(big, mask), overlap_separable(p, mask, rows, columns)
    torch.testing.assert_close(coarse.dice(), fine.dice())
    torch.testing.assert_close(coarse.complement().dice(), fine.complement().dice())


def test_gradients_of_cells_equal_those_of_pixels() -> None:
    p, mask = example(3)
    fine, coarse = p.clone().requires_grad_(), p.clone().requires_grad_()
    big = F.interpolate(fine[:, None], scale_factor=5, mode="nearest")[:, 0]
    (focal(big, mask) + overlap(big, mask).dice()).backward()
    counts, flat = patch_counts(mask, (3, 4)), coarse.flatten(1)
    (focal_cells(flat, counts, 25) + overlap_cells(flat, counts, 25).dice()).backward()
    torch.testing.assert_close(coarse.grad, fine.grad)


def test_certain_answers_stay_finite() -> None:
    """p of exactly 0 and 1, right and wrong: ε keeps loss and gradient finite."""
    p = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], requires_grad=True)
    mask = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    loss = focal(p, mask) + overlap(p, mask).dice()
    loss.backward()
    assert torch.isfinite(loss)
    assert p.grad is not None
    assert torch.isfinite(p.grad).all()


def test_perfect_maps_cost_nothing() -> None:
    mask = torch.zeros(2, 4, 4)
    mask[0, :2] = 1
    assert focal(mask, mask).item() == pytest.approx(0, abs=1e-6)
    assert overlap(mask, mask).dice().item() == pytest.approx(0, abs=1e-6)


def test_counts_sum_to_the_mask() -> None:
    _, mask = example(7)
    counts = patch_counts(mask, (3, 4))
    assert counts.shape == (2, 12)
    torch.testing.assert_close(counts.sum(1), mask.sum((1, 2)))


def test_masks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not divide"):
        patch_counts(torch.zeros(1, 10, 9), (5, 4))
