"""Detect by AnomalyCLIP: object-agnostic learned prompts, dense tokens from value-value attention.

Paper: Zhou et al., "AnomalyCLIP: Object-agnostic Prompt Learning for Zero-shot Anomaly Detection", ICLR 2024
(arXiv 2310.18961). Official code: github.com/zqhang/AnomalyCLIP (45ed4dd, MIT licence).

Notation: f̂ unit image embedding, F̂_i unit patch tokens, ĝ_n, ĝ_a unit text features, τ = 0.07, σ logistic.

    score  = softmax_c(f̂ · ĝ_c / τ)_a = σ( f̂ · (ĝ_a - ĝ_n) / τ )
    p_i    = softmax_c(F̂_i · ĝ_c / τ)_a
    map    = blur(Σ_taps Up(p))                               blur: Gaussian, σ = 4 pixels
    loss   = CE(score) + λ Σ_taps [ Focal(P) + Dice(P_a, G) + Dice(P_n, 1 - G) ],   P = Up(p)

Tokens come from the value-value stream from block 6 on (the code's DPAM), the image embedding is read without the
final LayerNorm. Two classes: every softmax is a logistic function of one difference, so one channel is computed.

The same as the code: all of it, to float32 (tests compare features, text, maps, scores, losses, gradients), in its
present setting of one tap at block 24 and λ = 4; the first release summed four taps that aliased one tensor, which is
the same thing. Different: text is cut behind its end token (exact); Dice is taken on the patch grid (exact); the fp16
round trip of deep prompts is an option (`half_deep`); on backbones of another depth the stream starts a quarter in.

Input: 518 x 518, bicubic, aspect not kept; position grid bilinear. Published (image AUROC, AP | pixel AUROC, AUPRO, %):
MVTec 91.5, 96.2 | 91.1, 81.4; VisA 82.1, 85.4 | 95.5, 87.0. Retraining varies by 1 to 2 points.
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
from anomalens.methods.base import ScoreMap, image_embedding, register
from anomalens.methods.parts.learnable import PromptConfig, Prompts
from anomalens.methods.parts.learned import LearnedMethod, separable_loss, stream_start
from anomalens.methods.parts.losses import Loss
from anomalens.methods.parts.upsampling import enlarge


@dataclass(frozen=True)
class Config(PromptConfig):
    """Hold AnomalyCLIP's settings; the defaults are the published ones since April 2025."""

    # First block of the value-value stream, from 1; None: a quarter in (6 of 24).
    start: int | None = None
    # Blocks whose tokens make a map each; maps are summed.
    taps: tuple[int, ...] = (-1,)
    # τ, temperature of the softmax.
    temperature: float = 0.07
    # Blur of the map, standard deviation in pixels; 0 is none.
    sigma: float = 4.0
    # λ, weight of the pixel losses.
    local_weight: float = 4.0


@register(
    "anomalyclip", title="AnomalyCLIP", source="Zhou et al., ICLR 2024 (arXiv 2310.18961)", year=2024, config=Config
)
class AnomalyCLIP(LearnedMethod):
    """Implement AnomalyCLIP. The text side is the unit pair [C, E]."""

    config: Config
    names_object: ClassVar[bool] = False
    cls: ClassVar[Literal["normed", "raw"]] = "raw"
    positions: ClassVar[Positions] = "bilinear"

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        self.prompts = Prompts(clip.text, config)
        self.dense = (Dense("value-value", stream_start(clip, config.start), config.taps),)
        self.heat_range = (0.0, float(len(config.taps)))

    def text(self, encoder: PromptEncoder, name: str) -> Tensor:
        """Encode the pair [C, E], unit; `name` plays no part, AnomalyCLIP calls everything "object"."""
        return F.normalize(self.prompts(encoder.clip.text), dim=-1)

    def probabilities(self, features: Features, text: Tensor) -> Tensor:
        """Compute p of every tap: [taps, B, h, w], probability "abnormal" of each patch."""
        tokens = F.normalize(torch.stack(features.dense[0]), dim=-1)
        logits = tokens @ ((text[1] - text[0]) / self.config.temperature)
        return logits.sigmoid().view(*tokens.shape[:2], *features.grid)

    def score(self, features: Features, text: Tensor, size: tuple[int, int]) -> ScoreMap:
        """Score in (0, 1); maps in (0, number of taps)."""
        score = (image_embedding(features) @ (text[1] - text[0]) / self.config.temperature).sigmoid()
        return ScoreMap(score, enlarge(self.probabilities(features, text).sum(dim=0), size, self.config.sigma))

    def loss(self, features: Features, text: Tensor, masks: Tensor, labels: Tensor) -> Loss:
        """Compute CE + λ Σ_taps (focal + dice of both channels) at the pixels of bilinear upsampling."""
        logits = image_embedding(features) @ text.T / self.config.temperature
        image = F.cross_entropy(logits, labels.long())
        local = torch.stack([separable_loss(p, masks) for p in self.probabilities(features, text)]).sum()
        return Loss(image + self.config.local_weight * local, {"image": image, "local": local})
