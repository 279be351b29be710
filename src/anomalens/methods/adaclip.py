"""Detect by AdaCLIP: prompts inside both towers, a static part and a part made from each image.

Paper: Cao et al., "AdaCLIP: Adapting CLIP with Hybrid Learnable Prompts for Zero-Shot Anomaly Detection", ECCV 2024
(arXiv 2407.15795). Official code: github.com/caoyunkang/AdaCLIP (e27ee32).

    f0     = CLIP's image embedding without prompts;   D = five linear maps of f0 for either tower
    H_j    = S_j + D                                   prompts of layer j = 0..3, five rows each
    image  [class, patches, H_0] enters block 1; before blocks 2..4 the last five rows become H_j
    text   before blocks 2..4 rows 1..5 become H_j     28 + 20 sentences, unit, averaged, unit: t_n, t_a of the image
    F_k    = unit(X_k W_k + b_k)                       X_k: patch tokens after blocks 6, 12, 18, 24
    f      = unit(W f_cls + b)
    a_k    = 100 F_k · (t_a - t_n)
    map    = blur(σ(Up(mean_k a_k)))                   Up: bilinear, aligned corners; blur: σ = 4 pixels
    score  = σ(100 unit(0.2 F_H + 0.8 f) · (t_a - t_n))
    F_H    = unit(mean of the centres of 20 clusters of the 100 most anomalous patches)       (HSF)
    loss   = Focal(score) + Σ_k [ Focal(P_k) + Dice(P_k, G) + Dice(1 - P_k, 1 - G) ],   P_k = σ(Up(a_k))

The same as the code: structure, sizes, scales, losses, f0 not normalised, clusters of unit tokens, a position table
resized bicubically without antialiasing. With random weights and the same clusters, maps equal the public code's to
3e-6 and scores to 1e-6; a test compares both with an implementation written out from the description. Different, on
purpose: float32 throughout (the code's fp16 autocast is reported unstable in training); k-means from deterministic
seeds, so a score never changes between runs, where the code's seeds are random and move a score by about 0.002; batches
of any size (the code takes single images and so averages Dice over pixel rows); the first static text prompt, which
nothing reads, is left out. Two settings come with what the authors published and not with training here: the code runs
OpenAI's quick-GELU weights with exact GELU (the backbone ViT-L-14-336-gelu, which their checkpoints take by
themselves), and it rounds prompts to half precision (`half_prompts`). Two tower passes and 48 sentences an image are
the method's own cost: nothing of it can be kept. In training the first pass never changes, so it runs once.

Ours: on backbones of another depth the taps are the ends of the tower's quarters, and prompts reach four blocks, or all
where there are no more (the bundled backbone: taps and prompts at each of its four blocks).

Input: 518 x 518, bicubic, aspect not kept, class names in the prompts. Published (image AUROC | pixel AUROC, %; trained
with medical images too): MVTec 89.2 | 88.7; VisA 85.8 | 95.5; trained on MVTec or VisA alone 89.6 | 90.3, 83.9 | 95.6.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip, Embedded, Features, Positions, TextTower
from anomalens.errors import ConfigError
from anomalens.methods.base import ExportTraits, ScoreMap, register
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.learned import LearnedMethod, Recipe, quarter_taps
from anomalens.methods.parts.losses import Loss, focal, overlap
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.tracing import largest, may_stop
from anomalens.methods.parts.upsampling import enlarge


@dataclass(frozen=True)
class Config(MethodConfig):
    """Hold AdaCLIP's settings."""

    # J, layers with prompts in either tower; cut at the tower.
    depth: int = 4
    # M, rows of each prompt.
    length: int = 5
    # Blocks read, from 1; (): the ends of the tower's quarters (6, 12, 18, 24).
    taps: tuple[int, ...] = ()
    # Factor of cosines before the softmax.
    scale: float = 100.0
    # K of the semantic fusion; 5 K patches are clustered; 0 leaves the fusion out.
    clusters: int = 20
    # Most iterations of the clustering.
    iterations: int = 50
    # Share of the clusters' embedding in the image embedding.
    fusion: float = 0.2
    # Blur of the map, standard deviation in pixels; 0 is none.
    sigma: float = 4.0
    # Round prompts to half precision before they enter a tower, as the authors' code does.
    half_prompts: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 1 or self.length < 1 or self.clusters < 0:
            raise ConfigError("depth and length must be at least 1, clusters at least 0")


@dataclass
class PromptedFeatures(Features):
    """Hold features of images seen with prompts, and what the prompts were made from."""

    # [B, E] f0, the embedding without prompts.
    plain: Tensor = field(kw_only=True)


@dataclass
class Text:
    """Hold sentences about an object, ready for prompts that differ from image to image."""

    tower: TextTower
    sentences: ensembles.Ensemble
    # [P, l, D] embeddings without positions.
    rows: Tensor
    # [P] row of the end-of-text token.
    end: Tensor


@register("adaclip", title="AdaCLIP", source="Cao et al., ECCV 2024 (arXiv 2407.15795)", year=2024, config=Config)
class AdaCLIP(LearnedMethod):
    """Implement AdaCLIP. The text side is a list of sentences, encoded with each image's own prompts."""

    config: Config
    score_only_options: ClassVar[tuple[str, ...]] = ("clusters", "iterations", "fusion")
    recipe: ClassVar[Recipe] = Recipe("adamw", lr=0.01, weight_decay=0.01, epochs=5, batch=1)
    uses_names: ClassVar[bool] = True
    positions: ClassVar[Positions] = "bicubic-unfiltered"

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        vision, text, joint = clip.vision, clip.text, clip.joint
        taps = config.taps or quarter_taps(clip)
        self.dense = (Dense("plain", 1, taps, project=False),)
        visual_depth, text_depth = min(config.depth, vision.layers), min(config.depth, text.layers) - 1
        self.visual_static = nn.Parameter(0.02 * torch.randn(visual_depth, config.length, vision.width))
        self.text_static = nn.Parameter(0.02 * torch.randn(text_depth, config.length, text.width))
        self.visual_dynamic = nn.Linear(joint, config.length * vision.width)
        self.text_dynamic = nn.Linear(joint, config.length * text.width)
        self.patch_maps = nn.ModuleList(nn.Linear(vision.width, joint) for _ in taps)
        self.image_map = nn.Linear(joint, joint)

    def export_traits(self, size: int) -> ExportTraits:
        """Keep a graph with clusters to one size."""
        if not self.config.clusters:
            return ExportTraits()
        return ExportTraits(one_size="how many patches it clusters depends on how many there are")

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> PromptedFeatures:
        """Encode pixels [B, 3, H, W] in two passes: without prompts for f0, then with the prompts made from it."""
        return self.encode_learned(clip, self.encode_frozen(clip, pixels, keys))

    def encode_frozen(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> Features:
        """Encode pixels [B, 3, H, W] without prompts: f0 [B, E], and the embedded patches [B, N, D]."""
        with torch.no_grad():
            embedded = clip.visual.patches(pixels)
            plain = clip.visual(pixels, positions=self.positions, embedded=embedded)
        return Features(plain.cls, ((embedded.patches.flatten(2).mT,),), plain.grid, embedded.levels)

    def encode_learned(self, clip: Clip, frozen: Features) -> PromptedFeatures:
        """Encode embedded patches with the prompts made from f0."""
        plain, patches = frozen.cls, frozen.dense[0][0]
        assert plain is not None
        dynamic = self.visual_dynamic(plain).view(plain.shape[0], 1, self.config.length, -1)
        features: Features = clip.visual(
            None,
            self.dense,
            positions=self.positions,
            prompts=self._hybrid(self.visual_static, dynamic),
            embedded=Embedded(patches.mT.unflatten(2, frozen.grid).to(clip.visual.dtype), frozen.levels),
            level_taps=self.level_taps,
        )
        return PromptedFeatures(features.cls, features.dense, features.grid, features.levels, plain=plain)

    def _hybrid(self, static: Tensor, dynamic: Tensor) -> Tensor:
        """Add the parts of prompts, rounded to half precision where the config says so."""
        prompts = static + dynamic
        return prompts.half().float() if self.config.half_prompts else prompts

    def text(self, encoder: PromptEncoder, name: str) -> Text:
        """Embed 28 + 20 sentences about `name`; they pass the tower with every image's own prompts."""
        sentences, tower = ensembles.adaclip(name), encoder.clip.text
        ids = tokenize(sentences.prompts).to(tower.positional_embedding.device)
        end = ids.argmax(dim=-1)
        return Text(tower, sentences, tower.token_embedding(ids[:, : int(end.max()) + 1]), end)

    def pairs(self, features: PromptedFeatures, text: Text) -> Tensor:
        """Compute t_n and t_a of every image: [B, C, E] unit."""
        images, (count, length) = features.plain.shape[0], text.rows.shape[:2]
        dynamic = self.text_dynamic(features.plain).view(1, images, 1, self.config.length, -1)
        hybrid = self._hybrid(self.text_static[:, None, None], dynamic)
        deep = hybrid.expand(-1, -1, count, -1, -1).flatten(1, 2)
        rows = text.rows.expand(images, -1, -1, -1).reshape(images * count, length, -1)
        raw = text.tower.encode(rows, text.end.repeat(images), deep).view(images, count, -1)
        return text.sentences.directions(raw, unit_first=True)

    def align(self, features: PromptedFeatures, text: Text) -> tuple[Tensor, Tensor]:
        """Compute the logits of every tap's patches [taps, B, N], and the image logits [B]."""
        assert features.cls is not None
        pairs = self.pairs(features, text)
        direction = pairs[:, 1] - pairs[:, 0]
        stages = zip(self.patch_maps, features.dense[0], strict=True)
        tokens = torch.stack([F.normalize(affine(x), dim=-1) for affine, x in stages])  # [taps, B, N, E]
        logits = self.config.scale * (tokens @ direction.unsqueeze(-1)).squeeze(-1)
        image = F.normalize(self.image_map(features.cls), dim=-1)
        if self.config.clusters:
            semantic = semantic_embedding(tokens, logits.mean(dim=0), self.config.clusters, self.config.iterations)
            image = F.normalize(self.config.fusion * semantic + (1 - self.config.fusion) * image, dim=-1)
        return logits, self.config.scale * (image * direction).sum(-1)

    def score(self, features: PromptedFeatures, text: Text, size: tuple[int, int]) -> ScoreMap:
        """Score in (0, 1), maps in (0, 1)."""
        logits, image = self.align(features, text)
        grid = logits.mean(dim=0).view(-1, *features.grid)
        heat = enlarge(grid, size, align_corners=True).sigmoid()
        return ScoreMap(image.sigmoid(), enlarge(heat, size, self.config.sigma))

    def loss(self, features: PromptedFeatures, text: Text, masks: Tensor, labels: Tensor) -> Loss:
        """Compute the image's focal + Σ_k (focal + dice of both channels), at the pixels."""
        logits, image = self.align(features, text)
        size = (masks.shape[-2], masks.shape[-1])
        maps = enlarge(logits.view(len(logits), -1, *features.grid), size, align_corners=True).sigmoid()
        sums = [overlap(p, masks) for p in maps]
        local = torch.stack(
            [focal(p, masks) + s.dice() + s.complement().dice() for p, s in zip(maps, sums, strict=True)]
        )
        whole = focal(image.sigmoid(), labels)
        return Loss(whole + local.sum(), {"image": whole, "local": local.sum()})


def semantic_embedding(tokens: Tensor, logits: Tensor, clusters: int, iterations: int = 50) -> Tensor:
    """Compute HSF: one unit embedding of the most anomalous patches, every kind of them counting the same.

    The 5 K patches with the largest logits are clustered by their tokens of all taps together; a cluster's centre is
    the mean of its tokens over patches and taps, the embedding is the unit mean of the centres. Gradients pass through
    the centres, not through the membership. Fewer patches make fewer clusters.

    Args:
        tokens: [taps, B, N, E] unit.
        logits: [B, N].
        clusters: K.
        iterations: of the clustering, at most.

    Returns:
        [B, E] unit.
    """
    kept = min(5 * clusters, logits.shape[1])
    chosen = largest(logits.detach(), kept, dim=1)
    rows = chosen[None, :, :, None].expand(len(tokens), -1, -1, tokens.shape[-1])
    picked = tokens.gather(2, rows)  # [taps, B, n, E], the most anomalous first
    joined = picked.permute(1, 2, 0, 3).flatten(2)
    member = k_means(joined.detach(), max(1, min(clusters, kept // 5)), iterations)
    share = member / member.sum(dim=1, keepdim=True).clamp_min(1)  # [B, n, K], each column a mean
    centres = share.transpose(1, 2) @ picked.mean(dim=0)
    return F.normalize(centres.sum(dim=1), dim=-1)  # an empty cluster adds nothing


def k_means(points: Tensor, clusters: int, iterations: int) -> Tensor:
    """Cluster by Lloyd's algorithm from farthest-point seeds, the first point first: the same answer every time.

    Args:
        points: [B, n, D], clustered image by image.
        clusters: K <= n.

    Returns:
        [B, n, K] one-hot membership, float; a cluster may be empty where points coincide.
    """
    seeds = points[:, :1]
    for _ in range(clusters - 1):
        farthest = _squared_distances(points, seeds).amin(dim=2).argmax(dim=1).view(-1, 1, 1)
        seeds = torch.cat([seeds, points.gather(1, farthest.expand(-1, 1, points.shape[2]))], dim=1)
    centres, member = seeds, points.new_zeros(*points.shape[:2], clusters)
    for _ in range(iterations):
        nearest = F.one_hot(_squared_distances(points, centres).argmin(dim=2), clusters).to(points.dtype)
        # Where nothing moves any more, another iteration changes nothing.
        if may_stop((nearest == member).all()):
            break
        member = nearest
        sizes = member.sum(dim=1).unsqueeze(2)
        centres = torch.where(sizes > 0, member.transpose(1, 2) @ points / sizes.clamp_min(1), centres)
    return member


def _squared_distances(points: Tensor, centres: Tensor) -> Tensor:
    """Compute all distances between [B, n, D] and [B, K, D]: [B, n, K]."""
    own, other = points.square().sum(dim=2, keepdim=True), centres.square().sum(dim=2).unsqueeze(1)
    return own + other - 2 * points @ centres.transpose(1, 2)
