"""Compute attention without a map of tokens x tokens, in whichever way is faster on the device."""

import torch
import torch.nn.functional as F
from torch import Tensor

_LONG = 512  # query rows from which a matrix product of each head alone is faster than the fused kernel


def fused_attention(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Compute softmax(q kᵀ/√d) v: q [B, heads, M, d], k and v [B, heads, L, d] -> [B, heads, M, d].

    The map [M, L] of all heads is never in memory at once.
    """
    if _headwise(q, is_causal):
        return _by_head(q, k, v)
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def _headwise(q: Tensor, causal: bool) -> bool:
    # torch's fused kernel for CPUs is no faster in bfloat16 than in float32; plain matrix products are, at least twice.
    return (
        q.dtype == torch.bfloat16
        and q.device.type == "cpu"
        and q.shape[-2] >= _LONG
        and not causal
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute one head after the other in one map [M, L], which stays in the processor's cache."""
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    weights = q.new_empty(q.shape[-2], k.shape[-2])
    scaled = q * q.shape[-1] ** -0.5
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            torch.mm(scaled[image, head], k[image, head].T, out=weights)
            torch.softmax(weights, dim=-1, out=weights)
            torch.mm(weights, v[image, head], out=out[image, head])
    return out
