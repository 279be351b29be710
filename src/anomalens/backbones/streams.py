"""Define dense token streams, which a method may ask of the image tower besides the ordinary tokens.

A stream is a second residual path that starts as a copy of the ordinary one and gathers, block by block, what the
ordinary queries, keys and values give under another attention. It never feeds back. With u = LN1_l(o_{l-1}) of the
ORDINARY path o and block l's own frozen weights:

    s_l = s_{l-1} + Proj_l( Att_stream(q, k, v) )            no feed-forward, no second LayerNorm

    value-value        Att = softmax(v vᵀ/√d) v                                    (AnoCLIP; AnomalyCLIP's DPAM)
    self-correlation   Att = [softmax(q qᵀ/√d) + softmax(k kᵀ/√d) + softmax(v vᵀ/√d)] v     (Crane's E-Attn)

A v is linear in A, so the sum of three attention maps is three calls of fused attention (`attention.py`), and no map
of tokens x tokens is written out for all heads.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from torch import Tensor

from anomalens.backbones.attention import fused_attention
from anomalens.backbones.transformer import Block, Projected
from anomalens.errors import ConfigError

StreamName = Literal["plain", "value-value", "self-correlation", "guided"]


def value_value(q: Tensor, k: Tensor, v: Tensor, rows: slice) -> Tensor:
    """Compute softmax(v vᵀ/√d) v for the query rows asked: q, k, v [B, heads, L, d] -> [B, heads, rows, d]."""
    return fused_attention(v[:, :, rows], v, v)


def self_correlation(q: Tensor, k: Tensor, v: Tensor, rows: slice) -> Tensor:
    """Compute the sum (not the mean) of query-query, key-key and value-value attention. Shapes as `value_value`."""
    total = fused_attention(q[:, :, rows], q, v)
    total = total + fused_attention(k[:, :, rows], k, v)
    return total + fused_attention(v[:, :, rows], v, v)


ATTENTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, slice], Tensor]] = {
    "value-value": value_value,
    "self-correlation": self_correlation,
}


@dataclass(frozen=True)
class Dense:
    """Ask for one dense stream of the tower's single pass.

    `plain` reads the ordinary residual path. `guided` replaces the last block's attention over patches by a matrix
    given to the tower (Crane's D-Attn): LN_post(Proj_L(A v)) with v taken from the middle of the last block; it has
    no residual, so `start` and `taps` do not apply to it.
    """

    stream: StreamName = "plain"
    # First block, counted from 1, that adds to the stream.
    start: int = 1
    # Blocks, counted from 1, after which tokens are read; -1 is the last.
    taps: tuple[int, ...] = (-1,)
    # Final LayerNorm and projection to the joint space, or the raw residual.
    project: bool = True
    # Keep the class token as row 0 of the result.
    class_row: bool = False

    def resolve(self, layers: int) -> "Dense":
        """Return the same request with taps counted from 1. Raises ConfigError if it does not fit `layers` blocks."""
        taps = tuple(layers + 1 + t if t < 0 else t for t in self.taps)
        if not taps or not all(1 <= t <= layers for t in taps):
            raise ConfigError(f"taps {self.taps} do not fit a tower of {layers} blocks (counted from 1)")
        if not 1 <= self.start <= layers:
            raise ConfigError(f"stream start {self.start} does not fit a tower of {layers} blocks")
        if self.stream in ATTENTIONS and min(taps) < self.start:
            raise ConfigError(f"tap {min(taps)} lies before the stream's first block {self.start}")
        if self.stream == "guided" and (taps != (layers,) or self.class_row):
            raise ConfigError("a guided stream is read after the last block and has no class row")
        return replace(self, taps=taps)


@dataclass
class Reading:
    """Follow one request through a pass, whose blocks are numbered from 1: its stream so far and the tokens read."""

    # Request with its numbers of blocks resolved.
    request: Dense
    # Rows of the ordinary path that the stream has: the patches, with or without the class row.
    rows: slice
    # s, [B, rows, D]; None before its first block.
    path: Tensor | None = None
    # By tap, [B, rows, D].
    tokens: dict[int, Tensor] = field(default_factory=dict)

    def gather(self, number: int, block: Block, x: Tensor, qkv: Projected) -> None:
        """Add to a stream of its own what block `number` gives on the ordinary path `x` [B, L, D] before it."""
        request = self.request
        if request.stream not in ATTENTIONS or not request.start <= number <= max(request.taps):
            return
        gathered = block.attn.merge(ATTENTIONS[request.stream](*qkv, self.rows))
        self.path = (x[:, self.rows] if self.path is None else self.path) + gathered
        if number in request.taps:
            self.tokens[number] = self.path

    def read_plain(self, number: int, x: Tensor) -> None:
        """Read the ordinary path `x` [B, L, D] after block `number`, if it is asked for."""
        if self.request.stream == "plain" and number in self.request.taps:
            self.tokens[number] = x[:, self.rows]

    def read_guided(self, number: int, block: Block, x: Tensor, guide: Tensor) -> None:
        """Mix by `guide` [B, N, N] the values of `x` [B, L, D], taken inside the last block, if it is asked for."""
        if self.request.stream == "guided":
            values = block.attn.values(block.ln_1(x[:, self.rows]))
            self.tokens[number] = block.attn.out_proj(guide.to(values.dtype) @ values)

    def in_order(self) -> list[Tensor]:
        """Return the tokens in the order of the request's taps."""
        return [self.tokens[tap] for tap in self.request.taps]
