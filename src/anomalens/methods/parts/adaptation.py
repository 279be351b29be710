"""Adapt AnoCLIP+ to an image at test time: a few optimiser steps on the image's own tokens, without autograd.

An adapter y = ½ z + ½ branch(x̂) turns each patch token z (x̂ = z/‖z‖) before it is compared with the text:

    dictionary    branch = Eᵀ tanh(W x̂ + b)     W [P, E], E the table of unit sentences (924 of them)
    linear        branch = W x̂ + b              W [E, E]

With ŷ = y/‖y‖ and g = t_abnormal − t_normal everything depends on δ = ŷ·g and p = σ(δ). A step sees the clean tokens
and one noisy copy z̃ = z + ε, wants the clean ones certain and normal and the noisy ones abnormal:

    L = mean_clean[ H(p) + ½ softplus(δ) ] + mean_noisy[ ½ softplus(−δ̃) ]           H: entropy; L = 2 ln 2 at δ = 0

so the gradient is a closed form (a few matrix products), for a stack of images at once:

    c = (1/N)( −δ p (1 − p) + ½ p )    c̃ = −(1/N) ½ (1 − p̃)
    q = c ½ (g − δ ŷ) / ‖y‖            dictionary: q ← (E q) ⊙ (1 − tanh²(W x̂ + b))
    ∂L/∂W = Σ q x̂ᵀ                     ∂L/∂b = Σ q

For an image cut into tiles the loss is a mean over merged pixels: δ is first spread by the map operators,
d = K_h δ K_wᵀ (both cosines are spread alike, so their difference is), and c comes back by the transposes, K_hᵀ c K_w.

Every image has weights, moments and random numbers of its own; they are drawn by NumPy from a seed and the image's
content (`draws.py`), so neither batch nor order nor device changes them. Memory per image, float32: W with its two
moments and its gradient 4·4·R·E bytes (R = P or E; 9.5 MB for 924 sentences of 640), plus noise and activations.

Shapes: B images, M tokens, E joint width, P sentences, R adapter rows, S steps.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.errors import ConfigError
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.upsampling import Operators, apply

# AdamW's, as in PyTorch.
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8

Weights = tuple[Tensor, Tensor]
"""W [B, R, E] and b [B, R] of an adapter, for each image."""


@dataclass(frozen=True)
class AdaptationConfig(MethodConfig):
    """Hold the settings of the test-time adaptation; the defaults are the published code's."""

    # Form of the adapter; the published code takes "linear" for VisA.
    adapter: Literal["dictionary", "linear"] = "dictionary"
    # Optimiser steps an image.
    steps: int = 5
    # AdamW's learning rate.
    lr: float = 1e-3
    # AdamW's decoupled weight decay.
    weight_decay: float = 0.01
    # Standard deviation of the noise on each coordinate of a token that is not normalised.
    noise: float = 0.055
    # Soft labels: the adapted prediction itself, or the un-adapted map.
    pseudo: Literal["self", "frozen"] = "self"
    # Keep moments from image to image, as the published code does: order matters then.
    carry_optimizer: bool = False
    # Seed of weights and noise, together with each image's content.
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.lr < 0 or self.weight_decay < 0 or self.noise < 0:
            raise ConfigError(
                f"steps {self.steps}, lr {self.lr}, weight_decay {self.weight_decay} and noise {self.noise} "
                "must not be negative"
            )


@dataclass
class AdamW:
    """Hold the optimiser's memory: one step count for all images, moments of each (Loshchilov & Hutter 2019)."""

    step: int = 0
    first: list[Tensor] = field(default_factory=list)
    second: list[Tensor] = field(default_factory=list)

    def update(self, weights: Weights, gradients: Weights, config: AdaptationConfig) -> None:
        """Take a step, in place on `weights`, by the arithmetic of `torch.optim.AdamW`."""
        if not self.first:
            self.first = [torch.zeros_like(g) for g in gradients]
            self.second = [torch.zeros_like(g) for g in gradients]
        self.step += 1
        beta1, beta2 = _BETAS
        rate = config.lr / (1 - beta1**self.step)
        correction = (1 - beta2**self.step) ** 0.5
        for weight, gradient, first, second in zip(weights, gradients, self.first, self.second, strict=True):
            weight.mul_(1 - config.lr * config.weight_decay)
            first.lerp_(gradient, 1 - beta1)
            second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            # Divided through by ε: exporters take a sum with 1e-8 for a sum with nothing.
            weight.addcdiv_(first, (second.sqrt() / (correction * _EPSILON)).add_(1), value=-rate / _EPSILON)


@dataclass(frozen=True)
class Adapted:
    """Hold the result of adapting B images."""

    # [B, M, E] adapted clean tokens y, not normalised.
    tokens: Tensor
    # [B, S] loss before each step.
    losses: Tensor
    # [B, S, 2] L2 norms of the gradients of W and b at each step.
    norms: Tensor


@torch.no_grad()
def adapt(
    tokens: Tensor,
    direction: Tensor,
    init: Weights,
    noise: Tensor,
    config: AdaptationConfig,
    *,
    table: Tensor | None = None,
    spread: Operators | None = None,
    optimizer: AdamW | None = None,
) -> Adapted:
    """Adapt B images at once, each as if it were alone.

    Args:
        tokens: [B, M, E] patch tokens z, not normalised; row-major over the grid where `spread` is given.
        direction: [E], g = t_abnormal − t_normal.
        init: initial weights W [B, R, E], b [B, R].
        noise: [B, S, M, E], added to the tokens before each step.
        table: [P, E] unit sentences of the dictionary adapter; None for the linear one.
        spread: map operators where the loss is taken over pixels instead of tokens.
        optimizer: continued, and changed; None starts a new one (the default of the method).
    """
    weights = (init[0].clone(), init[1].clone())
    optimizer = optimizer or AdamW()
    labels = None
    if config.pseudo == "frozen":
        labels = torch.sigmoid(_spread(F.normalize(tokens, dim=-1) @ direction, spread))
    losses, norms = [], []
    for step in range(config.steps):
        noisy = tokens + noise[:, step]
        loss, gradients = loss_and_gradient(
            tokens, noisy, direction, weights, table=table, spread=spread, labels=labels
        )
        losses.append(loss)
        norms.append(torch.stack([g.flatten(1).norm(dim=1) for g in gradients], dim=1))
        optimizer.update(weights, gradients, config)
    final, _ = _adapter(tokens, F.normalize(tokens, dim=-1), weights, table)
    empty = tokens.new_zeros(tokens.shape[0], 0)
    return Adapted(
        final,
        torch.stack(losses, dim=1) if losses else empty,
        torch.stack(norms, dim=1) if norms else empty.unsqueeze(-1).expand(-1, -1, 2),
    )


def loss_and_gradient(
    clean: Tensor,
    noisy: Tensor,
    direction: Tensor,
    weights: Weights,
    *,
    table: Tensor | None = None,
    spread: Operators | None = None,
    labels: Tensor | None = None,
) -> tuple[Tensor, Weights]:
    """Compute the loss [B] of each image and its gradients with respect to W [B, R, E] and b [B, R].

    `clean`, `noisy` [B, M, E]; `labels`: fixed abnormal probabilities [B, M] (spread: [B, H, W]) in place of the
    prediction itself; the rest as in `adapt`.
    """
    tokens = torch.cat([clean, noisy], dim=1)
    unit = F.normalize(tokens, dim=-1)
    y, hidden = _adapter(tokens, unit, weights, table)
    length = y.norm(dim=-1, keepdim=True)
    y_unit = y / length
    delta = y_unit @ direction
    count = clean.shape[1]
    d_clean, d_noisy = _spread(delta[:, :count], spread), _spread(delta[:, count:], spread)

    p = torch.sigmoid(d_clean)
    target = p if labels is None else labels
    points = (F.softplus(d_clean) - target * d_clean) + 0.5 * F.softplus(d_clean) + 0.5 * F.softplus(-d_noisy)
    slope = -d_clean * p * (1 - p) if labels is None else p - labels
    n = d_clean[0].numel()
    c_clean = (slope + 0.5 * p) / n
    c_noisy = -0.5 * torch.sigmoid(-d_noisy) / n
    c = torch.cat([_gather(c_clean, spread), _gather(c_noisy, spread)], dim=1).unsqueeze(-1)

    q = 0.5 * c / length * (direction - delta.unsqueeze(-1) * y_unit)
    if table is not None:
        # In place: fresh memory of this size costs as much as the arithmetic.
        q = (q @ table.T).mul_(hidden.square_().neg_().add_(1))
    return points.flatten(1).mean(dim=1), (q.mT @ unit, q.sum(dim=1))


def _adapter(tokens: Tensor, unit: Tensor, weights: Weights, table: Tensor | None) -> tuple[Tensor, Tensor]:
    """Compute y [B, M, E], and the activations [B, M, R] that the gradient needs."""
    weight, bias = weights
    # Not `baddbmm`: it copies the bias to every row first.
    hidden = (unit @ weight.mT).add_(bias.unsqueeze(1))
    if table is None:
        return 0.5 * tokens + 0.5 * hidden, hidden
    hidden = hidden.tanh_()
    return 0.5 * tokens + 0.5 * (hidden @ table), hidden


def _spread(delta: Tensor, spread: Operators | None) -> Tensor:
    """Take values of tokens [B, M] to the points of the loss: the tokens, or pixels [B, H, W]."""
    if spread is None:
        return delta
    rows, columns = spread
    return apply(rows, delta.view(-1, rows.shape[1], columns.shape[1]), columns)


def _gather(slopes: Tensor, spread: Operators | None) -> Tensor:
    """Transpose `_spread`: take slopes at the points of the loss to slopes of tokens [B, M]."""
    if spread is None:
        return slopes
    rows, columns = spread
    return apply(rows.T, slopes, columns.T).flatten(1)
