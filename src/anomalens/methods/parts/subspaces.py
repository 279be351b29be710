"""Project a pair of text features into Q pairs that are kept apart: TokenCLIP's multi-head projection.

    t^q_c = W^q_c g_c          q = 1..Q heads without bias, c in (normal, abnormal); W^q shared by both, or not

    head        W^q                                      start
    identity    [E, E]                                   I + N(0, 0.02²): cosine between heads about 1 / (1 + 0.02² E)
    linear      [E, E]                                   PyTorch's for linear layers: nearly orthogonal, prior lost
    low-rank    I + A B, A [E, r], B [r, E]              A ~ N(0, 1/r), B ~ N(0, 0.02²)
    split       [E/Q, E]                                 slice q of the identity + N(0, 0.02²); tokens are sliced too

The paper names the projection and a regulariser, not their forms; "identity" with the mean squared cosine is reasoned,
the others are the alternatives its words allow. Shapes: C = 2 (normal, abnormal), E joint width, Q subspaces.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from anomalens.errors import ConfigError

HeadShape = Literal["identity", "linear", "low-rank", "split"]
Regulariser = Literal["squared-cosine", "cosine", "weights"]

# Standard deviation of what tells the heads apart at the start.
_NOISE = 0.02


class Heads(nn.Module):
    """Apply Q linear maps of text features.

    Args:
        width: E.
        count: Q.
        classes: 1 for heads that both classes share, 2 for heads of their own.
        shape: see the module text.
        rank: r of "low-rank".

    Raises:
        ConfigError: "split" heads whose number does not divide E.
    """

    def __init__(self, width: int, count: int, classes: int, shape: HeadShape, rank: int) -> None:
        super().__init__()
        if shape == "split" and width % count:
            raise ConfigError(f"{count} split heads do not divide a width of {width}; choose a number that does")
        rows = width // count if shape == "split" else width
        self.down: nn.Parameter | None = None
        if shape == "low-rank":
            self.weight = nn.Parameter(torch.randn(classes, count, width, rank) * rank**-0.5)  # A
            self.down = nn.Parameter(_NOISE * torch.randn(classes, count, rank, width))  # B
        elif shape == "linear":
            self.weight = nn.Parameter(torch.empty(classes, count, rows, width).uniform_(-1, 1) * width**-0.5)
        else:
            start = torch.eye(width).view(count, rows, width) if shape == "split" else torch.eye(width)
            self.weight = nn.Parameter(start + _NOISE * torch.randn(classes, count, rows, width))

    def matrices(self) -> Tensor:
        """Return W: [1 or C, Q, E or E/Q, E]."""
        if self.down is None:
            return self.weight
        residual = self.weight @ self.down
        return residual + torch.eye(residual.shape[-1], dtype=residual.dtype, device=residual.device)

    def forward(self, pair: Tensor) -> Tensor:
        """Project text features [C, E] -> [C, Q, E or E/Q], not normalised."""
        return torch.einsum("cqde,ce->cqd", self.matrices().expand(len(pair), -1, -1, -1), pair)


def orthogonality(kind: Regulariser, subspaces: Tensor, heads: Heads) -> Tensor:
    """Measure how far the subspaces are from orthogonal: a scalar >= 0, 0 for a single subspace.

    squared-cosine   mean over classes and ordered pairs of cos², that is ½ Σ_c |T_c T_cᵀ - I|² / (Q (Q - 1))
    cosine           mean over classes of Σ_(q < r) |cos|                        (FAPrompt's form)
    weights          mean over pairs of |W_qᵀ W_r| / (|W_q| |W_r|), Frobenius    (of the heads alone)

    `subspaces` [C, Q, E] are of unit length.
    """
    count = subspaces.shape[1]
    if count == 1:
        return subspaces.new_zeros(())
    if kind == "weights":
        squares = heads.matrices() @ heads.matrices().transpose(-1, -2)  # W Wᵀ; |W_qᵀ W_r|² = <W_q W_qᵀ, W_r W_rᵀ>
        flat = squares.flatten(2)
        norms = squares.diagonal(dim1=-2, dim2=-1).sum(-1).sqrt()
        cosines = (flat @ flat.transpose(1, 2)).clamp_min(1e-12).sqrt() / (norms.unsqueeze(1) * norms.unsqueeze(2))
    else:
        cosines = subspaces @ subspaces.transpose(1, 2)
    apart = torch.triu(torch.ones_like(cosines[0]), diagonal=1).bool()
    pairs = cosines[:, apart]  # [classes, Q (Q - 1) / 2]
    if kind == "squared-cosine":
        return pairs.square().mean()
    return pairs.abs().sum(-1).mean() if kind == "cosine" else pairs.mean()
