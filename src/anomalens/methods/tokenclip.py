"""Detect by TokenCLIP: every token has its own mixture of text subspaces, dealt out by optimal transport.

Paper: Zhou, Gao, Pang, Wang, Chen, He, "TokenCLIP: Token-wise Prompt Learning for Zero-shot Anomaly Detection", 2025
(arXiv 2510.21171; submitted to ICLR 2026 and not accepted there). There is no public code, and this file was written
from the abstracts, four public reviews and a summary, without the body of the paper: read it as a reasoned
reconstruction.

ESTABLISHED (abstracts v1, v3; reviews): separate global and local prompts; a base alignment of all tokens with the
local pair; a multi-head projection of that pair into Q orthogonal subspaces with a regulariser; per image an optimal
transport of all tokens to the subspaces with a cost made of cross-modal similarity and an iterative solver; a top-k
mask of the plan (best k is neither 1 nor Q); the sum of global, base, dynamic and orthogonality losses; greedy
assignment ("TokenCLIP-Van") loses 4.2 points of image AUROC on MVTec.

UNSPECIFIED, hence a field of `Config` each: marginals, ε, gradient through the plan, which text makes the cost, pair or
single heads, shape and start of the heads, form and weight of the regulariser, Q and k, what the mask leaves, where
subspaces are combined, loss weights, taps, the class token, map and score at inference, blur, shared deep prompts.

REASONED (defaults): with F̂_i unit tokens, g_n, g_a the raw local pair, ĝᴳ the unit global pair, f̂ the image embedding:

    t^q_c  = unit(W_q g_c),  W_q = I + N(0, 0.02²)       one head for both classes: keeps CLIP's prior, breaks symmetry
    S_iq   = ½ (F̂_i · t^q_n + F̂_i · t^q_a)              what a token is, not whether it is anomalous
    T      = transport of S, rows 1/M, columns 1/Q, ε = 0.05, detached             (`parts/transport.py`)
    w_i    = top-2 of row i, renormalised
    s_ic   = Σ_q w_iq F̂_i · t^q_c,   p_i = σ((s_ia - s_in) / τ)                   dynamic alignment, τ = 0.07
    b_i    = σ(F̂_i · (ĝ_a - ĝ_n) / τ)                                             base alignment
    loss   = CE(f̂ · ĝᴳ_c / τ) + L(b) + L(p) + 0.1 L_reg,     L = Focal + Dice(P_a, G) + Dice(P_n, 1 - G)
    L_reg  = mean squared cosine of different subspaces of a class
    map    = blur(Up(p)),   score = ½ (σ(f̂ · (ĝᴳ_a - ĝᴳ_n) / τ) + max map)

Backbone, streams, prompts and training are AnomalyCLIP's (same first author): 518 x 518, bicubic, aspect not kept.
Published: MVTec image AUROC between 91.5 and 95.7 (inferred from a review); no other number is known.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Features, Positions
from anomalens.errors import ConfigError
from anomalens.methods.base import ExportTraits, ScoreMap, image_embedding, register
from anomalens.methods.parts.learnable import PromptConfig, Prompts, encode_together
from anomalens.methods.parts.learned import LearnedMethod, separable_loss, stream_start
from anomalens.methods.parts.losses import Loss
from anomalens.methods.parts.subspaces import Heads, HeadShape, Regulariser, orthogonality
from anomalens.methods.parts.transport import Columns, Weighing, assign, sinkhorn
from anomalens.methods.parts.upsampling import enlarge


@dataclass(frozen=True)
class Config(PromptConfig):
    """Hold TokenCLIP's settings. Every field is unspecified in public; defaults are reasoned, see the module text."""

    # Q, the number of subspaces.
    subspaces: int = 6
    # Subspaces a token may use; cut at Q.
    k: int = 2
    # Shape and start of the projections, see `subspaces.py`.
    head: HeadShape = "identity"
    # Rank of "low-rank" heads.
    rank: int = 32
    # One head for the pair, or one for normal and one for abnormal.
    shared_heads: bool = True
    # Global and local prompts with the same deep prompts.
    share_deep: bool = False
    # Heads do not move the local prompts: those learn from the base loss alone.
    detach_base: bool = False
    # Text a token is compared with; per-class: a plan for each.
    cost: Literal["mean", "max", "per-class"] = "mean"
    # Similarities to zero mean and a spread of 0.1 per image before the transport.
    standardise: bool = False
    # What ties the subspaces; "free" is the greedy variant (TokenCLIP-Van).
    columns: Columns = "uniform"
    # Entropy of the plan, in units of cosine.
    epsilon: float = 0.05
    # ρ of "relaxed" columns.
    relaxation: float = 1.0
    # κ of "capped" columns.
    capacity: float = 1.5
    # Most iterations of the solver.
    iterations: int = 100
    # Let gradients flow through the transport.
    through_plan: bool = False
    # What the mask leaves of the plan.
    weighing: Weighing = "renormalised"
    # Where subspaces are combined.
    combine: Literal["similarity", "vector", "probability"] = "similarity"
    # Transport the class token too (it never enters a map).
    class_token: bool = False
    # First block of the value-value stream, from 1; None: a quarter in (6 of 24).
    start: int | None = None
    # Blocks read; each has its own plan, their maps are averaged.
    taps: tuple[int, ...] = (-1,)
    # τ, temperature of the softmax.
    temperature: float = 0.07
    # Form of the orthogonality loss.
    regulariser: Regulariser = "squared-cosine"
    # λ_b, weight of the base loss.
    base_weight: float = 1.0
    # λ_d, weight of the dynamic loss.
    dynamic_weight: float = 1.0
    # λ_r, weight of the orthogonality loss.
    orthogonal_weight: float = 0.1
    # Dynamic map alone, or its mean with the base map.
    map: Literal["dynamic", "average"] = "dynamic"
    # Half global prompt and half maximum of the map, or the global prompt alone.
    image_score: Literal["fused", "global"] = "fused"
    # Blur of the map, standard deviation in pixels; 0 is none.
    sigma: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.subspaces < 1 or self.k < 1:
            raise ConfigError(f"subspaces {self.subspaces} and k {self.k} must be at least 1")


@dataclass
class Text:
    """Hold the text side: three pairs and the subspaces, all of unit length."""

    # ĝᴳ [C, E], the global pair.
    global_pair: Tensor
    # ĝ [C, E], the local pair.
    local_pair: Tensor
    # t [C, Q, E], or [C, Q, E / Q] for split heads.
    subspaces: Tensor


@register("tokenclip", title="TokenCLIP", source="Zhou et al. 2025 (arXiv 2510.21171)", year=2025, config=Config)
class TokenCLIP(LearnedMethod):
    """Implement TokenCLIP: two pairs of prompts, and heads that turn the local pair into Q subspaces."""

    config: Config
    names_object: ClassVar[bool] = False
    cls: ClassVar[Literal["normed", "raw"]] = "raw"
    positions: ClassVar[Positions] = "bilinear"
    score_only_options: ClassVar[tuple[str, ...]] = ("image_score",)

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        self.global_prompts = Prompts(clip.text, config)
        self.local_prompts = Prompts(clip.text, config)
        if config.share_deep:
            self.local_prompts.deep = self.global_prompts.deep
        classes = 1 if config.shared_heads else 2
        self.heads = Heads(clip.joint, config.subspaces, classes, config.head, config.rank)
        start = stream_start(clip, config.start)
        self.dense = (Dense("value-value", start, config.taps, class_row=config.class_token),)

    def export_traits(self, size: int) -> ExportTraits:
        """Name the choice that a tie decides."""
        return ExportTraits(switches="which subspaces a token uses")

    # ------------------------------------------------------------------------------------------------- text side
    def text(self, encoder: PromptEncoder, name: str) -> Text:
        """Encode both pairs in one pass, and the subspaces; `name` plays no part, the prompts say "object"."""
        image, base = encode_together(encoder.clip.text, [self.global_prompts, self.local_prompts])
        subspaces = F.normalize(self.heads(base.detach() if self.config.detach_base else base), dim=-1)
        return Text(F.normalize(image, dim=-1), F.normalize(base, dim=-1), subspaces)

    # ------------------------------------------------------------------------------------------------ alignments
    def similarities(self, tokens: Tensor, text: Text) -> Tensor:
        """Compute F̂_i · t^q_c: unit tokens [B, M, E] -> [B, M, C, Q]. A split head sees its own slice of a token."""
        if self.config.head == "split":
            parts = F.normalize(tokens.unflatten(-1, (self.config.subspaces, -1)), dim=-1)
            return torch.einsum("bmqe,cqe->bmcq", parts, text.subspaces)
        classes, count, width = text.subspaces.shape
        return (tokens @ text.subspaces.view(classes * count, width).T).view(*tokens.shape[:2], classes, count)

    def assignment(self, similarity: Tensor) -> Tensor:
        """Compute w from similarities [B, M, C, Q]: [B, M, 1, Q], or [B, M, C, Q] with a plan for each class."""
        config = self.config
        if config.cost == "per-class":
            affinity = similarity.transpose(1, 2)  # [B, C, M, Q]
        elif config.cost == "max":
            affinity = similarity.amax(dim=2).unsqueeze(1)
        else:
            affinity = similarity.mean(dim=2).unsqueeze(1)
        if not config.through_plan:
            affinity = affinity.detach()
        if config.standardise:
            spread, mean = torch.std_mean(affinity, dim=(-2, -1), keepdim=True)
            affinity = 0.1 * (affinity - mean) / spread.clamp_min(1e-6)
        plan = sinkhorn(
            affinity,
            config.epsilon,
            columns=config.columns,
            relaxation=config.relaxation,
            capacity=config.capacity,
            iterations=config.iterations,
        )
        return assign(plan, min(config.k, config.subspaces), config.weighing).transpose(1, 2)

    def dynamic(self, tokens: Tensor, text: Text) -> Tensor:
        """Compute p, the probability "abnormal" of unit tokens [B, M, E] under their own mixtures: [B, M]."""
        similarity = self.similarities(tokens, text)
        weights = self.assignment(similarity)
        if self.config.combine == "probability":
            normal, abnormal = similarity.unbind(dim=2)
            probabilities = ((abnormal - normal) / self.config.temperature).sigmoid()
            return (weights.mean(dim=2) * probabilities).sum(-1)
        mixed = (weights * similarity).sum(-1)  # [B, M, C]
        if self.config.combine == "vector":
            mixed = mixed / self._mixture_norm(weights, text)
        return ((mixed[..., 1] - mixed[..., 0]) / self.config.temperature).sigmoid()

    def _mixture_norm(self, weights: Tensor, text: Text) -> Tensor:
        """Compute |Σ_q w_iq t^q_c| of every token and class, from the Gram matrix of the subspaces: [B, M, C]."""
        if self.config.head == "split":  # slices do not overlap
            return weights.square().sum(-1).sqrt().expand(-1, -1, 2)
        gram = text.subspaces @ text.subspaces.transpose(1, 2)  # [C, Q, Q]
        expanded = weights.expand(-1, -1, 2, -1)
        return torch.einsum("bmcq,cqr,bmcr->bmc", expanded, gram, expanded).clamp_min(1e-12).sqrt()

    def base(self, tokens: Tensor, text: Text) -> Tensor:
        """Compute b, the probability "abnormal" of unit tokens [B, M, E] under the local pair alone: [B, M]."""
        return (tokens @ ((text.local_pair[1] - text.local_pair[0]) / self.config.temperature)).sigmoid()

    def maps(self, features: Features, text: Text) -> tuple[Tensor, Tensor]:
        """Compute the base and the dynamic probabilities of the patches of every tap, each [taps, B, h, w]."""
        pairs = []
        for tap in features.dense[0]:
            tokens = F.normalize(tap, dim=-1)
            pair = torch.stack([self.base(tokens, text), self.dynamic(tokens, text)])
            pairs.append(pair[:, :, 1:] if self.config.class_token else pair)
        stacked = torch.stack(pairs, dim=1)
        base, dynamic = stacked.view(*stacked.shape[:3], *features.grid)
        return base, dynamic

    # -------------------------------------------------------------------------------------------- score and loss
    def score(self, features: Features, text: Text, size: tuple[int, int]) -> ScoreMap:
        """Score in (0, 1), maps in (0, 1)."""
        base, dynamic = self.maps(features, text)
        grid = dynamic if self.config.map == "dynamic" else (base + dynamic) / 2
        heat = enlarge(grid.mean(dim=0), size, self.config.sigma)
        direction = text.global_pair[1] - text.global_pair[0]
        score = (image_embedding(features) @ direction / self.config.temperature).sigmoid()
        if self.config.image_score == "fused":
            score = (score + heat.amax(dim=(1, 2))) / 2
        return ScoreMap(score, heat)

    def loss(self, features: Features, text: Text, masks: Tensor, labels: Tensor) -> Loss:
        """Compute CE + λ_b L_base + λ_d L_dyn + λ_r L_reg; local losses of bilinear upsampling, summed over taps."""
        config = self.config
        logits = image_embedding(features) @ text.global_pair.T / config.temperature
        image = F.cross_entropy(logits, labels.long())
        base, dynamic = (
            torch.stack([separable_loss(p, masks) for p in taps]).sum() for taps in self.maps(features, text)
        )
        cosines = orthogonality(config.regulariser, text.subspaces, self.heads)
        total = image + config.base_weight * base + config.dynamic_weight * dynamic + config.orthogonal_weight * cosines
        return Loss(total, {"image": image, "base": base, "dynamic": dynamic, "orthogonal": cosines})
