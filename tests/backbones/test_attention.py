"""Attention in bfloat16 on a CPU goes head by head; nothing else may notice."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones import attention
from anomalens.backbones.attention import fused_attention

ROWS = attention._LONG


def qkv(rows: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return queries of a part of the rows, and keys and values of all, strided as the tower's."""
    packed = torch.randn(2, rows + 3, 3, 4, 16, generator=torch.Generator().manual_seed(3)).to(dtype)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    return [q[:, :, 3:], k, v]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Record the shape of the queries of every call of torch's own kernel."""
    shapes: list[torch.Size] = []
    kernel = F.scaled_dot_product_attention

    def counting(q: Tensor, *rest: Any, **options: Any) -> Tensor:
        shapes.append(q.shape)
        return kernel(q, *rest, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", counting)
    return shapes


def test_head_by_head_is_the_same_attention(calls: list[torch.Size]) -> None:
    q, k, v = qkv(ROWS, torch.bfloat16)
    with torch.inference_mode():
        actual = fused_attention(q, k, v)
    assert not calls, "the other way was not taken"
    expected = F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert actual.dtype == torch.bfloat16
    assert actual.shape == expected.shape
    # Weights and logits are rounded to bfloat16's 8 bits on the way.
    torch.testing.assert_close(actual.float(), expected, atol=0.02, rtol=0.02)


@pytest.mark.parametrize(
    ("rows", "dtype", "grad", "causal"),
    [
        (ROWS, torch.float32, False, False),
        (ROWS - 1, torch.bfloat16, False, False),
        (ROWS, torch.bfloat16, True, False),
        (ROWS, torch.bfloat16, False, True),
    ],
)
def test_everything_else_is_torchs_kernel(
    calls: list[torch.Size], rows: int, dtype: torch.dtype, grad: bool, causal: bool
) -> None:
    q, k, v = qkv(rows, dtype)
    with torch.set_grad_enabled(grad):
        fused_attention(q, k, v, is_causal=causal)
    assert len(calls) == 1
