"""Detect by Crane and Crane+: refined attention, score-pooled image embedding, prompts that see the image in training.

Paper: Salehi et al., "Crane: Context-Guided Prompt Learning and Attention Refinement for Zero-Shot Anomaly Detection",
2025 (arXiv 2504.11055). Official code: github.com/AlirezaSalehy/Crane (39181f9, MIT licence).

Notation: ĝ unit image embedding, Ẑ_m unit patch tokens of map m, t_n, t_a unit text features, τ = 0.07, σ logistic.

    a_mj   = Ẑ_mj · (t_a - t_n) / τ                              log-odds of "abnormal" at patch j
    w_j    = σ(mean_m a_mj),   c = unit(Σ_j w_j mean_m Ẑ_mj)     score-based pooling
    score  = σ( unit(½ c + ½ ĝ) · (t_a - t_n) / τ )
    map    = blur(Up(mean_m σ(a_m)))  "soft"    or    blur(σ(Up(mean_m a_m)))  "hard"

Maps: E-Attn, the self-correlation stream from block 6 on (`backbones/streams.py`); Crane+ adds D-Attn, whose attention
in the last block is a softmax of R = γ (S - β mean S), R < 0 masked, S the cosines of another network's patch features.

The same as the code: streams, pooling, prompts, losses and temperatures, to the tolerance of float32 (tests compare
features, text, maps, scores, losses and gradients). Different, on purpose:
* one distinct map where the code sums four aliases of one buffer; `map_weight` keeps the training loss equal;
* the threshold of D-Attn is the mean over the image, not over whatever images share the batch (`batch_threshold`),
  and a row that it would mask completely keeps its own patch instead of turning into NaN;
* one fusion for all targets ("soft"); the paper's tables choose fusion and epoch per target;
* text is cut behind its end token, and with an image token 9 rows an image are run instead of 154 (exact).

Established by the code: prompts are trained with the image token and evaluated without it (every published number);
`context=True` uses it at inference as the paper describes. Ours: on backbones of another depth the stream starts a
quarter into the tower; Crane+ without DINOv2 is guided by the backbone's own stem.

Input: 518 x 518, bicubic, aspect not kept; position grid bilinear. Published (image AUROC, AP | pixel AUROC, AUPRO, %):
Crane MVTec 93.8, 97.5 | 91.3, 84.6, VisA 85.3, 87.9 | 95.1, 87.5; Crane+ MVTec 93.9, 97.6 | 91.2, 88.1, VisA 83.6, 86.7
| 95.3, 90.6 (the authors' own log has 83.1, 85.9 for VisA images).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.dino import DinoGuide, load_dino
from anomalens.backbones.prefix import Prefix
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense, StreamName
from anomalens.backbones.tower import Clip, Features, Positions, TextTower
from anomalens.images.normalisation import Triple
from anomalens.methods.base import ExportTraits, ScoreMap, image_embedding, register
from anomalens.methods.parts.learnable import PromptConfig, Prompts
from anomalens.methods.parts.learned import LearnedMethod, Recipe, stream_start
from anomalens.methods.parts.losses import Loss, focal_cells, overlap_cells, patch_counts
from anomalens.methods.parts.upsampling import enlarge


class Guide(Protocol):
    """Describe a network whose patch features say which patches belong together."""

    def features(self, pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
        """Compute [B, N, C] on the backbone's patch grid, from its pixels [B, 3, H, W] normalised by `mean`, `std`."""


@dataclass(frozen=True)
class Config(PromptConfig):
    """Hold Crane's settings; the defaults are the published evaluation."""

    # Stream of the E-Attn map; "plain" and "value-value" for comparison.
    stream: StreamName = "self-correlation"
    # First block of the stream, from 1; None: a quarter into the tower (6 of 24).
    start: int | None = None
    # Add the D-Attn map (Crane+).
    guided: bool = False
    # D-Attn: share of the mean similarity below which a pair of patches is masked.
    beta: float = 1.2
    # D-Attn: sharpness of the similarities that stay.
    gamma: float = 3.0
    # D-Attn: mean over the batch as in the code; scores then depend on the batch.
    batch_threshold: bool = False
    # Image token in the prompts at inference.
    context: bool = False
    # Image token in the prompts in training.
    train_context: bool = True
    # Share of the pooled patches in the image embedding; 0 is the class token alone.
    pooling: float = 0.5
    # Probabilities before upsampling, or logits.
    fusion: Literal["soft", "hard"] = "soft"
    # τ, temperature of the softmax.
    temperature: float = 0.07
    # τ of the image term of the loss.
    train_temperature: float = 0.01
    # Blur of the map, standard deviation in pixels; 0 is none.
    sigma: float = 4.0
    # Weight of each map in the pixel losses: the code sums four equal ones (Crane+: 1).
    map_weight: float = 4.0
    # Weight of focal and of Dice.
    pixel_weight: float = 2.0
    # Weight of the cross-entropy.
    image_weight: float = 0.2


@dataclass
class Text:
    """Hold a pair of sentences for all images, or what is needed to make a pair for each image."""

    prompts: Prompts
    tower: TextTower
    # [1, C, E] unit; None: sentences with an image token.
    pair: Tensor | None = None
    # Keys and values of the rows before the image token; None: sentences are run whole.
    prefix: Prefix | None = None

    def pairs(self, image: Tensor) -> Tensor:
        """Return unit text features for unit image embeddings [B, E]: [B, C, E], or [1, C, E] where all are equal."""
        if self.pair is not None:
            return self.pair
        return F.normalize(self.prompts.with_image(self.tower, self.prefix, image), dim=-1)


@dataclass
class Aligned:
    """Hold what map, score and loss are made of."""

    # [B or 1, C, E] unit.
    text: Tensor
    # Per map: a, [B, N].
    logits: tuple[Tensor, ...]
    # f, [B, E] unit.
    image: Tensor

    @property
    def direction(self) -> Tensor:
        """Return t_a - t_n: [B or 1, E]."""
        return self.text[:, 1] - self.text[:, 0]


_SOURCE = "Salehi et al. 2025 (arXiv 2504.11055)"


@register("crane", title="Crane", source=_SOURCE, year=2025, config=Config)
class Crane(LearnedMethod):
    """Implement Crane, and Crane+ with `guided`."""

    config: Config
    names_object: ClassVar[bool] = False
    positions: ClassVar[Positions] = "bilinear"
    score_only_options: ClassVar[tuple[str, ...]] = ("pooling",)
    image_options: ClassVar[tuple[str, ...]] = ("guide", "beta", "gamma", "batch_threshold")
    recipe: ClassVar[Recipe] = Recipe(betas=(0.6, 0.999), epochs=5)

    def __init__(self, clip: ClipConfig, config: Config, guide: Guide | None = None) -> None:
        super().__init__(clip, config)
        self.guide = guide
        self.prompts = Prompts(clip.text, config)
        first = stream_start(clip, config.start) if config.stream != "plain" else 1
        stream = Dense(config.stream, first)
        self.dense = (Dense("guided"), stream) if config.guided else (stream,)

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        """Encode pixels [B, 3, H, W]; `dense` holds [D-Attn (Crane+ only), E-Attn], each one tap [B, N, E]."""
        embedded, attention = clip.visual.patches(pixels), None
        if self.config.guided:
            # Without a guide network the backbone's own patch embeddings guide: good where a pretrained stem made them.
            own = embedded.patches.flatten(2).transpose(1, 2)
            mean, std = clip.pixels.mean, clip.pixels.std
            alike = self.guide.features(pixels, mean, std) if self.guide else own
            attention = guided_attention(alike, self.config.beta, self.config.gamma, self.config.batch_threshold)
        features: Features = clip.visual(
            pixels,
            self.dense,
            positions=self.positions,
            guide=attention,
            embedded=embedded,
            level_taps=self.level_taps,
        )
        return features

    def export_traits(self, size: int) -> ExportTraits:
        """Refuse what makes an image's map depend on the rest of its batch."""
        if self.config.guided and self.config.batch_threshold:
            return ExportTraits(unexportable="batch_threshold makes a map depend on the whole batch; leave it out")
        return ExportTraits()

    def text(self, encoder: PromptEncoder, name: str) -> Text:
        """Prepare the learned sentences; `name` plays no part, Crane calls everything "object"."""
        tower = encoder.clip.text
        with_image = self.config.train_context if self.training else self.config.context
        if with_image:
            # Rounded gradients equal the published code's on whole sequences only.
            whole = self.training and self.config.half_deep
            return Text(self.prompts, tower, prefix=None if whole else self.prompts.prefix(tower))
        return Text(self.prompts, tower, pair=F.normalize(self.prompts(tower), dim=-1).unsqueeze(0))

    def align(self, features: Features, text: Text) -> Aligned:
        """Compute a of every map and the pooled image embedding f."""
        image = image_embedding(features)  # ĝ
        pairs = text.pairs(image)
        direction = (pairs[:, 1] - pairs[:, 0]).unsqueeze(-1)
        tokens = [F.normalize(taps[0], dim=-1) for taps in features.dense]
        logits = [(z @ direction).squeeze(-1) / self.config.temperature for z in tokens]
        weights = torch.stack(logits).mean(dim=0).sigmoid()  # w
        pooled = F.normalize(torch.einsum("bn,bne->be", weights, torch.stack(tokens).mean(dim=0)), dim=-1)  # c
        share = self.config.pooling
        return Aligned(pairs, tuple(logits), F.normalize(share * pooled + (1 - share) * image, dim=-1))

    def score(self, features: Features, text: Text, size: tuple[int, int]) -> ScoreMap:
        """Score in (0, 1), maps in (0, 1)."""
        aligned = self.align(features, text)
        logits = torch.stack(aligned.logits).view(len(aligned.logits), -1, *features.grid)  # [M, B, h, w]
        if self.config.fusion == "soft":
            heat = enlarge(logits.sigmoid().mean(dim=0), size, self.config.sigma)
        else:
            heat = enlarge(enlarge(logits.mean(dim=0), size).sigmoid(), size, self.config.sigma)
        score = ((aligned.image * aligned.direction).sum(-1) / self.config.temperature).sigmoid()
        return ScoreMap(score, heat)

    def loss(self, features: Features, text: Text, masks: Tensor, labels: Tensor) -> Loss:
        """Compute 2 Σ_m focal + 2 Σ_m dice + 0.2 ce; pixel losses of nearest upsampling, on the patch grid (exact)."""
        config, aligned = self.config, self.align(features, text)
        counts = patch_counts(masks, features.grid)
        cell = masks[0].numel() // counts.shape[1]
        maps = [logits.sigmoid() for logits in aligned.logits]
        focal = config.map_weight * torch.stack([focal_cells(p, counts, cell) for p in maps]).sum()
        dice = config.map_weight * torch.stack([overlap_cells(p, counts, cell).dice() for p in maps]).sum()
        logits = torch.einsum("be,bce->bc", aligned.image, aligned.text.expand(len(aligned.image), -1, -1))
        ce = F.cross_entropy(logits / config.train_temperature, labels.long())
        total = config.pixel_weight * (focal + dice) + config.image_weight * ce
        return Loss(total, {"focal": focal, "dice": dice, "image": ce})


def guided_attention(features: Tensor, beta: float, gamma: float, batch_threshold: bool = False) -> Tensor:
    """Compute D-Attn: patch features [B, N, C] -> attention [B, N, N], rows summing to 1.

    softmax over the entries of γ (S - β mean S) that are not negative, S the cosines. The mean of S over an image is
    |mean_j f̂_j|². A patch's own entry is never masked: it is its row's largest, so this matters only where all of
    the row would go (mean S > 1/β, an image without contrast).
    """
    unit = F.normalize(features.float(), dim=-1)
    mean = unit.mean(dim=1).square().sum(-1).view(-1, 1, 1)
    if batch_threshold:
        mean = mean.mean()
    kept = gamma * (unit @ unit.transpose(1, 2) - beta * mean)
    own = torch.eye(kept.shape[-1], dtype=torch.bool, device=kept.device)
    return kept.masked_fill((kept < 0) & ~own, -torch.inf).softmax(dim=-1)


@dataclass(frozen=True)
class PlusConfig(Config):
    """Hold Crane+'s settings; the defaults are the published evaluation's, but for the fusion (see the module text)."""

    guided: bool = True
    map_weight: float = 1.0
    # Folder or hub id of DINOv2 with registers; None: the backbone's own stem.
    guide: str | None = None


@register("crane+", title="Crane+", source=_SOURCE, year=2025, config=PlusConfig)
class CranePlus(Crane):
    """Add the D-Attn map of Crane+, guided by `config.guide`, by a guide of the caller's, or by the backbone's stem."""

    config: PlusConfig

    def load_networks(self, *, offline: bool) -> None:
        """Load the guide that `config.guide` names; the published one is "facebook/dinov2-with-registers-base"."""
        if self.config.guide is None:
            if self.clip.vision.stem is None:
                logging.getLogger("anomalens").warning(
                    "crane+ has no guide network and the backbone has no convolutional stem: its D-Attn map compares"
                    " raw patches. Give guide=... (a folder or hub id of DINOv2 with registers), or use 'crane'."
                )
        else:
            self.guide = DinoGuide(load_dino(self.config.guide, offline=offline), self.clip.vision.patch)
