"""Detect by WinCLIP, zero-shot: class tokens of hundreds of small windows, compared with words for either state.

Paper: Jeong, Zou, Kim, Zhang, Ravichandran, Dabeer, "WinCLIP: Zero-/Few-Shot Anomaly Classification and Segmentation",
CVPR 2023 (arXiv 2303.14814). No official code; of the public reconstructions, windows and prompts follow
caoyunkang/WinClip (0818c9d) and the aggregation follows open-edge-platform/anomalib, which is the paper's.

    text         t_s: mean of raw sentence embeddings of state s (154 normal, 88 abnormal), unit length
    ascore(f)    softmax([f̂·t_n, f̂·t_a] / τ)_a
    windows      k x k patches, k = 2, 3, stride 1: the tower runs on the class token and the covered patches alone
    per scale    M_k(i,j) = harmonic mean of ascore over all windows of that scale covering patch (i,j)
    map          harmonic mean of M_2, M_3 and the whole image's ascore, bilinear to pixels (corners not aligned)
    score        ascore of the whole image's class token

All harmonic means together are one matrix product, 1/M = C (1/a): a holds the scores of all windows and of the image,
row (i,j) of C their weights. Windows are gathered by index and run as batches of short sequences.

The same as the reconstructions (tests compare with recorded runs): sentences, windows, tokens, text, maps by scale.
Different, because the paper says otherwise or they are defects: swapped colour channels, half precision, the maximum of
the map as the image score, aggregation of normality instead of abnormality, and a template list with a gap.

Input: 240 pixels (ViT-B/16-plus of LAION-400M), bicubic, squashed to a square.
Published (MVTec AD): image AUROC 91.8, pixel AUROC 85.1, AUPRO 64.6; no public re-run reaches the pixel figures; see
docs/methods.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip, Features
from anomalens.errors import ConfigError
from anomalens.methods.base import ExportTraits, Method, ScoreMap, register
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.method_config import MethodConfig
from anomalens.methods.parts.upsampling import enlarge

# |f̂·(t_a − t_n)| drawn as coldest and hottest: cosines of window tokens differ by less than this.
_HEAT = 0.05
# Log-odds of a score of 1e-35, close to the least that float32 holds a reciprocal of.
_LEAST = -80.0


@dataclass(frozen=True)
class Config(MethodConfig):
    """Hold WinCLIP's settings."""

    # Sides of the windows in patches; the whole image is always one more scale.
    scales: tuple[int, ...] = (2, 3)
    # τ of the softmax. The paper gives none. 0.07 is what the public code with the paper's aggregation uses; at CLIP's
    # own 0.01 window scores saturate and the harmonic mean is ruled by a few windows near 0.
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scales or any(scale < 1 for scale in self.scales):
            raise ConfigError(f"scales {self.scales} must be window sides of at least 1 patch, for instance (2, 3)")
        if self.temperature <= 0:
            raise ConfigError(f"temperature {self.temperature} must be above 0; the published codes use 0.07 and 0.01")


@dataclass
class WindowFeatures(Features):
    """Hold features of images and of their windows."""

    # Per window scale [B, M, E] class tokens.
    windows: tuple[Tensor, ...] = ()


@register(
    "winclip",
    title="WinCLIP: class tokens of small windows",
    source="Jeong et al., CVPR 2023 (arXiv 2303.14814)",
    year=2023,
    config=Config,
)
class WinCLIP(Method):
    """Implement WinCLIP without reference images. Map and score are probabilities of "abnormal", sharpened by 1/τ."""

    config: Config

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        hot = 1 / (1 + math.exp(-_HEAT / self.config.temperature))
        self.heat_range = (1 - hot, hot)

    def export_traits(self, size: int) -> ExportTraits:
        """Keep a graph to one size."""
        return ExportTraits(one_size="its windows are listed for one grid of patches")

    def text(self, encoder: PromptEncoder, name: str) -> Tensor:
        """Encode 242 sentences -> [2, E]: unit vectors of normal and abnormal."""
        ensemble = ensembles.winclip(name)
        return ensemble.directions(encoder(ensemble.prompts))

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> WindowFeatures:
        """Encode pixels [B, 3, H, W]: class tokens of the image [B, E] and of its windows, [B, M, E] a scale."""
        whole = super().encode(clip, pixels, keys)
        windows = tuple(
            clip.visual.windows(pixels, window_index(whole.grid, scale, pixels.device), self.positions)
            for scale in self.config.scales
        )
        return WindowFeatures(whole.cls, whole.dense, whole.grid, whole.levels, windows)

    def hand_out_levels(self, taps: tuple[int, ...]) -> None:
        """Hand out levels; without taps windows and the last block's patch tokens, which are then read too."""
        super().hand_out_levels(taps)
        if not taps:
            self.dense = (Dense(project=False),)

    def levels(self, features: WindowFeatures) -> tuple[Tensor, ...]:
        """Return grids of features [B, h, w, C]: without taps those of windows, a scale each, then patch tokens."""
        if self.level_taps:
            return super().levels(features)
        height, width = features.grid
        grids = [
            window.unflatten(1, (height - scale + 1, width - scale + 1))
            for window, scale in zip(features.windows, self.config.scales, strict=True)
        ]
        return (*grids, features.dense[0][0].unflatten(1, features.grid))

    def score(self, features: WindowFeatures, text: Tensor, size: tuple[int, int]) -> ScoreMap:
        """Score whole images [B]; maps [B, *size] of harmonically averaged window scores."""
        grid, device = features.grid, features.windows[0].device
        direction = (text[1] - text[0]) / self.config.temperature
        image = cast(Tensor, features.cls).unsqueeze(1)
        log_odds = F.normalize(torch.cat([*features.windows, image], dim=1), dim=-1) @ direction  # [B, all M + 1]
        # 1 / σ(x) = 1 + exp(−x), kept finite: an infinite reciprocal would reach patches its window does not cover.
        inverse = (1 + torch.exp(-log_odds.clamp(min=_LEAST))) @ coverage(grid, self.config.scales, device).T
        return ScoreMap(torch.sigmoid(log_odds[:, -1]), enlarge((1 / inverse).view(-1, *grid), size))


@lru_cache(maxsize=32)
def window_index(grid: tuple[int, int], scale: int, device: torch.device) -> Tensor:
    """List the patch numbers of all windows of `scale` x `scale` patches at stride 1: [M, scale²], row-major.

    Raises ConfigError where the grid is smaller than a window.
    """
    if min(grid) < scale:
        raise ConfigError(
            f"a grid of {grid[0]} x {grid[1]} patches holds no window of {scale} x {scale}: "
            "use a larger image or smaller scales"
        )
    with torch.inference_mode(False):
        patches = torch.arange(grid[0] * grid[1], device=device).view(grid)
        return patches.unfold(0, scale, 1).unfold(1, scale, 1).reshape(-1, scale**2)


@lru_cache(maxsize=8)
def coverage(grid: tuple[int, int], scales: tuple[int, ...], device: torch.device) -> Tensor:
    """Return C [N, windows of all scales + 1], whose rows sum to 1.

    Each scale, and the whole image in the last column, weighs the same; within a scale the windows that cover a patch
    have equal weights.
    """
    count = grid[0] * grid[1]
    with torch.inference_mode(False):
        parts = []
        for scale in scales:
            index = window_index(grid, scale, device)
            covers = torch.zeros(len(index), count, dtype=torch.float32, device=device).scatter_(1, index, 1.0).T
            parts.append(covers / covers.sum(dim=1, keepdim=True))
        parts.append(torch.ones(count, 1, dtype=torch.float32, device=device))
        return torch.cat(parts, dim=1) / len(parts)
