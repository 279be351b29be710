"""Cache keys and values of a shared prompt prefix: it goes through the text tower once, the rest for each prompt.

Under the causal mask a row never sees the rows behind it, so keys and values of a prefix are the same whatever
follows. Keeping them is exact; nothing is approximated. Crane's prompts differ between images from row 13 on only.

Shapes: P sequences, n rows of prefix, m rows behind it, D text width, d = D / heads, E joint width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from anomalens.backbones.tower import TextTower, place_deep


@dataclass(frozen=True)
class Prefix:
    """Hold keys and values of P prefixes of n rows, block by block."""

    # Per block [P, heads, n, d].
    keys: tuple[Tensor, ...]
    # Per block [P, heads, n, d].
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Return n, the rows of the prefix."""
        return self.keys[0].shape[2]

    def pick(self, index: int) -> "Prefix":
        """Return the prefix of one sequence, as a batch of one."""
        rows = slice(index, index + 1)
        return Prefix(tuple(k[rows] for k in self.keys), tuple(v[rows] for v in self.values))


def encode_prefix(text: TextTower, x: Tensor, deep: Tensor | None = None) -> Prefix:
    """Return keys and values in every block of embeddings [P, n, D] without positions.

    `deep` as in `TextTower.encode`: rows 1..length are overwritten before block 2, 3, …; they must lie in the prefix.
    """
    x = x + text.positional_embedding[: x.shape[1]]
    keys, values = [], []
    for number, block in enumerate(text.transformer.blocks):
        x = place_deep(x, deep, number)
        qkv = block.project(x)
        keys.append(qkv[1])
        values.append(qkv[2])
        if number + 1 < len(text.transformer.blocks):  # the last block's output is read behind the prefix only
            x = block.feed_forward(block.attend(x, qkv, causal=True))
    return Prefix(tuple(keys), tuple(values))


def encode_behind(text: TextTower, prefix: Prefix, x: Tensor) -> Tensor:
    """Encode embeddings [P, m, D] that follow a prefix of one sequence, or of P: [P, E] float32 read at the last row.

    Not normalised. The result is that of the whole sequence through `TextTower.encode`.
    """
    n, (count, m) = prefix.length, x.shape[:2]
    x = x + text.positional_embedding[n : n + m]
    seen = torch.ones(m, n + m, dtype=torch.bool, device=x.device).tril(n)  # row i sees the prefix and rows <= i
    last = len(text.transformer.blocks) - 1
    for number, block in enumerate(text.transformer.blocks):
        q, k, v = block.project(x)
        k = torch.cat([prefix.keys[number].expand(count, -1, -1, -1), k], dim=2)
        v = torch.cat([prefix.values[number].expand(count, -1, -1, -1), v], dim=2)
        rows = slice(m - 1, m) if number == last else slice(None)
        mixed = scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=seen[rows])
        x = block.feed_forward(x[:, rows] + block.attn.merge(mixed))
    return text.project(x[:, -1])
