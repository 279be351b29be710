"""Build pre-LayerNorm transformer blocks under the parameter names of OpenAI's CLIP (Radford et al. 2021).

Shapes: B sequences, L rows, D width, d = D / heads.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.attention import fused_attention
from anomalens.backbones.config import Activation

Projected = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each [B, heads, L, d]."""


class QuickGELU(nn.Module):
    """Compute x σ(1.702 x), the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply it element by element, to any shape."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Project for multi-head attention. The attention itself differs by stream, so it is computed elsewhere."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def qkv(self, x: Tensor) -> Projected:
        """Project rows to queries, keys and values: [B, L, D] -> three of [B, heads, L, d]."""
        b, rows, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = packed.view(b, rows, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def values(self, x: Tensor) -> Tensor:
        """Project rows to values alone, heads joined: [B, L, D] -> [B, L, D]."""
        width = x.shape[-1]
        return F.linear(x, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])

    def merge(self, heads: Tensor) -> Tensor:
        """Join the heads and project: [B, heads, L, d] -> [B, L, D]."""
        return cast(Tensor, self.out_proj(heads.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Run attention, then a feed-forward layer, each behind a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, hidden),
                gelu=QuickGELU() if activation == "quick_gelu" else nn.GELU(),
                c_proj=nn.Linear(hidden, width),
            )
        )

    def project(self, x: Tensor) -> Projected:
        """Return queries, keys and values of the block's input: [B, L, D] -> three of [B, heads, L, d]."""
        return self.attn.qkv(self.ln_1(x))

    def attend(self, x: Tensor, qkv: Projected, rows: slice = slice(None), causal: bool = False) -> Tensor:
        """Return the first half of the block for the rows asked, given what `project` says of `x`:
        [B, L, D] -> [B, rows, D]."""
        q, k, v = qkv
        return x[:, rows] + self.attn.merge(fused_attention(q[:, :, rows], k, v, is_causal=causal))

    def feed_forward(self, x: Tensor) -> Tensor:
        """Return the second half of the block: [B, L, D] -> [B, L, D]."""
        return cast(Tensor, x + self.mlp(self.ln_2(x)))

    def forward(self, x: Tensor, rows: slice = slice(None), causal: bool = False) -> Tensor:
        """Run the block for the rows asked; keys and values come from all rows: [B, L, D] -> [B, rows, D]."""
        return self.feed_forward(self.attend(x, self.project(x), rows, causal))


class Transformer(nn.Module):
    """Stack blocks under the name checkpoints give them."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_ratio, activation) for _ in range(layers))

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks in order."""
        return [cast(Block, block) for block in self.resblocks]


def layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """Apply a LayerNorm in float32 whatever precision it is kept in: [..., D] -> [..., D] float32."""
    return F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
