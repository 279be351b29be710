"""Detect by APRIL-GAN (VAND): hand-written prompts, and a learned affine map for the tokens of each tower quarter.

Paper: Chen, Han, Zhang, "APRIL-GAN: A Zero-/Few-Shot Anomaly Classification and Segmentation Method for CVPR 2023 VAND
Workshop Challenge Tracks 1&2" (arXiv 2305.17382). Official code: github.com/ByChelsea/VAND-APRIL-GAN (f13b8a6, MIT).

    Y_k   = X_k W_k + b_k                     X_k: patch tokens after blocks 6, 12, 18, 24, no LayerNorm, no projection
    P_k   = softmax_c( Up(100 · unit(Y_k) · t_c) )_a = σ( Up(100 · unit(Y_k) · (t_a - t_n)) )
    map   = Σ_k P_k   (0 .. 4, not smoothed)
    score = softmax_c(100 · f̂ · t_c)_a        f̂: CLIP's unit image embedding, nothing learned
    loss  = Σ_k [ Focal(P_k) + Dice(P_k, G) ]

Upsampling is bilinear with aligned corners, of logits, before the softmax. 3,148,800 parameters on ViT-L/14.

The same as the code: all of it, to float32 (tests compare block outputs, positions, maps, scores, losses, gradients;
for both activations). Different: one channel instead of two (exact). Activation travels with the backbone here: the
public code runs OpenAI's quick-GELU weights with exact GELU at 518 pixels, so its released maps W_k, b_k take the
backbone ViT-L-14-336-gelu by themselves; for maps trained here the activation the weights were trained with is right.
Ours: on backbones of another depth the taps are the ends of its quarters.

Input: 518 x 518, bicubic, aspect not kept; position grid bicubic, antialiased. Published (image AUROC, AP | pixel
AUROC, AUPRO, %): MVTec 86.1, 93.5 | 87.6, 44.0; VisA 78.0, 81.4 | 94.2, 86.8.
"""

from dataclasses import dataclass
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Features
from anomalens.methods.base import ScoreMap, image_embedding, register
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.learned import LearnedMethod, Recipe, quarter_taps
from anomalens.methods.parts.losses import Loss, focal, overlap
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.upsampling import enlarge


@dataclass(frozen=True)
class Config(MethodConfig):
    """Hold APRIL-GAN's settings."""

    # Blocks read, from 1; (): the ends of the tower's quarters (6, 12, 18, 24).
    taps: tuple[int, ...] = ()
    # Factor of cosines before the softmax.
    scale: float = 100.0


@register(
    "aprilgan",
    title="APRIL-GAN",
    source="Chen et al., CVPR 2023 VAND challenge (arXiv 2305.17382)",
    year=2023,
    config=Config,
)
class AprilGan(LearnedMethod):
    """Implement APRIL-GAN. The text side is the unit pair [C, E] of an object's name."""

    config: Config
    # With MVTec as source; the paper trains 15 epochs on VisA.
    recipe: ClassVar[Recipe] = Recipe(epochs=3)
    uses_names: ClassVar[bool] = True

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        taps = config.taps or quarter_taps(clip)
        self.dense = (Dense("plain", 1, taps, project=False),)
        self.maps = nn.ModuleList(nn.Linear(clip.vision.width, clip.joint) for _ in taps)
        self.heat_range = (0.0, float(len(taps)))

    def text(self, encoder: PromptEncoder, name: str) -> Tensor:
        """Encode the pair [C, E], unit: 245 + 175 sentences about `name`, each normalised, averaged, normalised."""
        ensemble = ensembles.aprilgan(name)
        return ensemble.directions(encoder(ensemble.prompts), unit_first=True)

    def levels(self, features: Features) -> tuple[Tensor, ...]:
        """Return grids of features [B, h, w, C]: without taps the tokens that the learned maps read."""
        if self.level_taps:
            return super().levels(features)
        return tuple(tokens.unflatten(1, features.grid) for tokens in features.dense[0])

    def logits(self, features: Features, text: Tensor) -> Tensor:
        """Compute 100 · unit(Y_k) · (t_a - t_n) of every stage: [stages, B, h, w]."""
        stages = zip(self.maps, features.dense[0], strict=True)
        unit = torch.stack([F.normalize(cast(Tensor, affine(tokens)), dim=-1) for affine, tokens in stages])
        logits = self.config.scale * unit @ (text[1] - text[0])
        return logits.view(*unit.shape[:2], *features.grid)

    def score(self, features: Features, text: Tensor, size: tuple[int, int]) -> ScoreMap:
        """Score in (0, 1); maps in (0, 4), one unit a stage."""
        score = (self.config.scale * image_embedding(features) @ (text[1] - text[0])).sigmoid()
        heat = enlarge(self.logits(features, text), size, align_corners=True).sigmoid().sum(dim=0)
        return ScoreMap(score, heat)

    def loss(self, features: Features, text: Tensor, masks: Tensor, labels: Tensor) -> Loss:
        """Compute Σ_k focal + dice at the pixels; `labels` play no part."""
        size = (masks.shape[-2], masks.shape[-1])
        maps = enlarge(self.logits(features, text.detach()), size, align_corners=True).sigmoid()
        focals = torch.stack([focal(p, masks) for p in maps]).sum()
        dices = torch.stack([overlap(p, masks).dice() for p in maps]).sum()
        return Loss(focals + dices, {"focal": focals, "dice": dices})
