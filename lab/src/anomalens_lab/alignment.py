"""Compute the losses of the bundled backbone: image tokens and class token shall agree with words about state and kind.

All comparisons are cosines over τ = 0.07, the temperature Crane, AnomalyCLIP and TokenCLIP read maps with, so their
probabilities come out calibrated; AnoCLIP's plain difference is the same ranking.

Shapes: B images, N = h*w tokens, E joint width, P prompts, K pairs of prompts, S streams, C kinds.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07


@dataclass(frozen=True)
class Weights:
    """Hold the weights of the parts of the loss."""

    # Each stream's map against the cover of its patches.
    dense: float = 1.0
    # Dice overlap of the same maps and patches.
    dice: float = 0.5
    # Naming the defect at its patches.
    kind: float = 0.25
    # Class token against sound and faulty.
    image: float = 1.0
    # The faulty one of twins above the sound one.
    rank: float = 0.5
    # Class token with the tokens its own map points at (Crane's image score).
    fused: float = 0.25
    # Class token against captions (contrastive).
    caption: float = 0.2
    # Class token of a few patches alone (WinCLIP).
    window: float = 0.5
    # Sentences keep the similarities the sentence teacher gives them.
    teacher: float = 0.5
    # The stem's channels where its last blocks learn, against those of the frozen stem.
    kept: float = 1.0


def directions(normal: Tensor, abnormal: Tensor) -> Tensor:
    """Turn text features [K, E] of each state into directions g = t_a - t_n [2K, E].

    Half of them single pairs, half the averaged ensemble: methods read both, and the mean is the calmer teacher.
    """
    pairs = F.normalize(abnormal, dim=1) - F.normalize(normal, dim=1)
    mean = F.normalize(abnormal.mean(0), dim=0) - F.normalize(normal.mean(0), dim=0)
    return torch.cat([pairs, mean.expand_as(pairs)])


def soft_focal(logits: Tensor, target: Tensor) -> Tensor:
    """Compute the cross-entropy against targets in [0, 1], weighted by the squared miss (quality focal loss)."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none") * (logits.sigmoid() - target).square()


def soft_dice(logits: Tensor, target: Tensor, dim: int) -> Tensor:
    """Compute the Dice loss of overlaps along `dim`, against targets in [0, 1] of the same shape."""
    p = logits.sigmoid()
    both, mass = (p * target).sum(dim), p.sum(dim) + target.sum(dim)
    return (1 - (2 * both + 1) / (mass + 1)).mean()


def target_of(cover: Tensor) -> Tensor:
    """Turn the defective share of a patch into its target: thin defects fill few pixels of the patches they cross."""
    return cover.clamp(0, 1).sqrt()


def dense_loss(tokens: Tensor, g: Tensor, cover: Tensor) -> tuple[Tensor, Tensor]:
    """Compute focal and Dice loss of maps. tokens [S, B, N, E] of unit length, g [K, E], cover [B, N]."""
    logits = tokens @ (g / TEMPERATURE).T  # [S, B, N, K]
    target = target_of(cover)[None, :, :, None].expand_as(logits)
    # Patches with a little of a defect are neither: their blame counts less.
    focal = soft_focal(logits, target).mean() * 10
    return focal, soft_dice(logits, target, dim=2)


def kind_loss(tokens: Tensor, phrases: Tensor, kinds: Tensor, cover: Tensor) -> Tensor:
    """Compute the cross-entropy of naming the kind at patches that are mostly defective.

    Args:
        tokens: [S, B, N, E] of unit length.
        phrases: [C, E] of unit length, in the order of the kinds, the first being "sound".
        kinds, cover: [B, N].
    """
    chosen = ((cover > 0.4) & (kinds > 0)).flatten().nonzero()[:, 0][:2000]
    if not len(chosen):
        return tokens.new_zeros(())
    picked = tokens.flatten(1, 2)[:, chosen]  # [S, M, E]
    logits = picked @ (phrases / TEMPERATURE).T
    wanted = kinds.flatten()[chosen].expand(len(tokens), -1)
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())


def image_loss(cls: Tensor, g: Tensor, abnormal: Tensor) -> Tensor:
    """Compute the binary cross-entropy of class tokens [..., E] of unit length against g [K, E]; abnormal [...]."""
    logits = cls @ (g / TEMPERATURE).T
    return F.binary_cross_entropy_with_logits(logits, abnormal.float()[..., None].expand_as(logits))


def rank_loss(cls: Tensor, tokens: Tensor, g: Tensor, abnormal: Tensor, share: float = 0.02) -> Tensor:
    """Compute how far the faulty one of twins is from scoring above the sound one, by class token and top of the maps.

    Users rank images of one kind of thing, while `image_loss` compares images of anything.

    Args:
        cls, tokens: [B, E] and [S, B, N, E] of unit length; images 2k and 2k + 1 are twins, the faulty one first.
        g: [K, E].
        abnormal: [B] whether a fault is left; twins of which the first has none do not count.
        share: of the patches that make the top of a map.
    """
    maps = tokens @ (g / TEMPERATURE).T  # [S, B, N, K]
    top = maps.topk(max(1, round(share * maps.shape[2])), dim=2).values.mean(2)
    scores = torch.cat([top, (cls @ (g / TEMPERATURE).T)[None]])  # [S + 1, B, K]
    counted = abnormal[0::2] & ~abnormal[1::2]
    margin = (scores[:, 0::2] - scores[:, 1::2])[:, counted]
    return F.softplus(-margin).mean() if len(margin[0]) else tokens.new_zeros(())


def fused_loss(cls: Tensor, tokens: Tensor, g: Tensor, abnormal: Tensor) -> Tensor:
    """Compute Crane's image score as a loss.

    The class token [B, E] is joined with the tokens [B, N, E] weighted by their own map; g [K, E] ends with the
    ensemble.
    """
    weight = (tokens @ (g[-1] / TEMPERATURE)).sigmoid()
    local = F.normalize((weight[..., None] * tokens).sum(1), dim=1)
    return image_loss(F.normalize(local + cls, dim=1), g[-1:], abnormal)


def caption_loss(cls: Tensor, captions: Tensor, texts: list[str], scale: Tensor) -> Tensor:
    """Compute the symmetric contrastive loss of B images and captions; equal captions are right for each other."""
    logits = scale.exp().clamp(max=100) * cls @ captions.T
    same = torch.tensor([[a == b for b in texts] for a in texts], dtype=logits.dtype, device=logits.device)
    wanted = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, wanted) + F.cross_entropy(logits.T, wanted)) / 2


def teacher_loss(texts: Tensor, taught: Tensor, head: Tensor) -> Tensor:
    """Compute 1 - cosine of text features [P, E], mapped by `head` [E, T], and the teacher's sentences [P, T]."""
    return 1 - F.cosine_similarity(texts @ head, taught, dim=1).mean()
