"""Solve entropic optimal transport from an image's tokens to a few text subspaces, and assign tokens sparsely.

For affinities S [M, Q] (cost 1 - S) the plan T maximises <T, S> + ε H(T) with rows Σ_q T_iq = 1/M and columns
tied to ν (Cuturi 2013). With logits L = S / ε it is T_iq = exp(L_iq + f_i + g_q), found by alternating in the log
domain, where nothing under- or overflows:

    f_i ← ln 1/M - LSE_q(L_iq + g_q)                            rows: exact
    g_q ← step( ln ν_q - LSE_i(L_iq + f_i) )                    columns: by the rule chosen
    uniform, similarity   step(x) = x                           Σ_i T_iq = ν_q
    relaxed               step(x) = ρ / (ρ + ε) · x             deviations from ν cost ρ · KL (unbalanced transport)
    capped                step(x) = min(x + ln κ, 0)            Σ_i T_iq ≤ κ ν_q (partial transport: need not fill)
    free                  g = 0                                 no column constraint: softmax(S / ε) of every token

The steps are the scaling algorithm of Chizat et al. (2018), whose table 1 holds the last three. Rows are updated last,
so a plan's rows are exact whatever the number of iterations: T = softmax_q(L + g) / M.

Shapes: B images (any leading axes), M tokens, Q subspaces.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from anomalens.errors import ConfigError
from anomalens.methods.parts.tracing import largest, may_stop

Columns = Literal["uniform", "similarity", "relaxed", "capped", "free"]
Weighing = Literal["renormalised", "scaled", "equal"]


def sinkhorn(
    affinity: Tensor,
    epsilon: float,
    *,
    columns: Columns = "uniform",
    relaxation: float = 1.0,
    capacity: float = 1.5,
    iterations: int = 100,
    tolerance: float = 1e-6,
) -> Tensor:
    """Solve for the entropic transport plan of every image.

    Images are solved together but do not influence one another; a solved image keeps iterating until all are, which
    moves its potentials by less than `tolerance`.

    Args:
        affinity: [..., M, Q] similarities, any float type; computed in float32 or better. Gradients flow through
            the iterations; detach for a plan without gradient.
        epsilon: entropy weight in units of similarity, > 0. Large: all rows equal; small: near one-hot.
        columns: how the sums of columns are constrained (see the module text). "similarity" takes ν from the softmax
            over subspaces of the tokens' mean similarity at temperature ε, "uniform" ν = 1/Q.
        relaxation: ρ of "relaxed", in units of similarity; large approaches "uniform", 0 is "free".
        capacity: κ of "capped", at least 1; 1 approaches "uniform".
        iterations: upper bound; fewer where the largest change of g falls below `tolerance`.

    Returns:
        [..., M, Q]: rows sum to 1/M; columns sum to ν where they are bound to it.

    Raises:
        ConfigError: epsilon not positive, or a capacity that leaves tokens over.
    """
    if epsilon <= 0:
        raise ConfigError(f"epsilon {epsilon} must be positive; 0.05 is the default, 'free' columns need no transport")
    if columns == "capped" and capacity < 1:
        raise ConfigError(f"capacity {capacity} holds less than all tokens; give 1 or more")
    # [..., Q, M]: sums over tokens then run along memory. A row's constant is absorbed by f; taking off its maximum
    # first keeps the largest logit of every token at 0 at any scale of S.
    logits = affinity.to(torch.promote_types(affinity.dtype, torch.float32)).transpose(-1, -2) / epsilon
    mean = logits.mean(dim=-1)
    logits = logits - logits.amax(dim=-2, keepdim=True)
    subspaces, tokens = logits.shape[-2:]
    g = torch.zeros_like(mean)
    target = torch.log_softmax(mean if columns == "similarity" else g, dim=-1)  # ln ν
    for _ in range(iterations if columns != "free" and subspaces > 1 else 0):
        f = -math.log(tokens) - torch.logsumexp(logits + g.unsqueeze(-1), dim=-2, keepdim=True)
        step = target - torch.logsumexp(logits + f, dim=-1)
        if columns == "relaxed":
            step = step * (relaxation / (relaxation + epsilon))
        elif columns == "capped":
            step = (step + math.log(capacity)).clamp(max=0)
        moved = (step - g).detach().abs().max()
        g = step
        if may_stop(moved < tolerance):
            break
    return torch.softmax(logits + g.unsqueeze(-1), dim=-2).transpose(-1, -2) / tokens


def assign(plan: Tensor, k: int, weighing: Weighing = "renormalised") -> Tensor:
    """Compute sparse weights of every token from its row of the plan: the k largest entries, the others 0.

    Args:
        plan: [..., M, Q], rows summing to 1/M.
        k: subspaces a token may use, 1..Q.
        weighing: "renormalised" to sum 1; "scaled" by M only, so that rows sum to less than 1; "equal"
            1/k each.

    Returns:
        [..., M, Q]. Ties go to the subspace that comes first.
    """
    tokens, subspaces = plan.shape[-2:]
    if not 1 <= k <= subspaces:
        raise ConfigError(f"k = {k} must lie between 1 and the {subspaces} subspaces")
    mask = torch.zeros_like(plan).scatter(-1, largest(plan, k), 1.0)
    if weighing == "equal":
        return mask / k
    kept = plan * mask
    if weighing == "scaled":
        return kept * tokens
    return kept / kept.sum(dim=-1, keepdim=True)
