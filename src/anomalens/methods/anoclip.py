"""Detect by AnoCLIP: domain-aware prompts and value-to-value tokens, untrained; AnoCLIP+ adapts to each image.

Paper: Deng, Zhang, Bao, Li, "Bootstrap Fine-Grained Vision-Language Alignment for Unified Zero-Shot Anomaly
Localization", arXiv 2308.15939 (first version 2023: "AnoVL", with TFA for AnoCLIP and TFA + TTA for AnoCLIP+).
Official code: github.com/hq-deng/AnoVL (3a70bfd, MIT licence), which this follows where the paper leaves a choice.

    text     T = [t_n t_a]: mean of 462 raw sentence embeddings a state, unit length;   g = t_a − t_n
    tokens   one pass, value-to-value stream from the first block, final LayerNorm and projection: z_i
    map      M_i = σ(ẑ_i·g), 3 x 3 mean, bilinear to pixels (corners aligned); no logit scale, so values sit near ½
    score    mean over views x_k of σ(f̂_cls(x_k)·g): the class token alone, no map term
    plus     AnoCLIP+ turns z_i by an adapter fitted to the image itself (`parts/adaptation.py`) before the map is made;
             the image score stays what it was, bit for bit

The same as the code (tests compare with recorded runs): sentences, tokens, views, scores, maps, and of the adaptation
losses, gradients and final maps. Different: random numbers are drawn for each image instead of once a run; the
optimiser starts afresh with each image unless `carry_optimizer`; flips and quarter turns are exact instead of
resampled; images longer than 2:1 get more tiles, and portrait images are cut along their height; towers of more than 12
blocks start the stream at their last 12, where the code cannot run; a name can be marked as a texture.

Input: 240 pixels (ViT-B/16-plus of LAION-400M), bilinear. Two geometries, as the authors' scripts have them: "squash"
(MVTec AD: a square, 22 views) and "wide" (VisA: shorter side resized, square tiles, one view a tile).
Published for AnoCLIP+ (MVTec AD): image AUROC 92.5, pixel AUROC 90.6, AUPRO 77.8; see docs/methods.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.streams import Dense
from anomalens.backbones.tower import Clip, Features
from anomalens.errors import ConfigError
from anomalens.images.content import content_key
from anomalens.methods.base import ExportTraits, Method, RandomFeatures, ScoreMap, register
from anomalens.methods.parts import ensembles
from anomalens.methods.parts.adaptation import AdamW, AdaptationConfig, adapt
from anomalens.methods.parts.draws import Draws
from anomalens.methods.parts.tracing import chunks
from anomalens.methods.parts.upsampling import Operators, apply, operators, tile_merger, tile_starts

_SOURCE = "Deng, Zhang, Bao & Li, 2023 (arXiv 2308.15939)"

# Rotations in radians; shifts in half sides.
_ANGLES = tuple(k * math.pi / 16 for k in (-4, -3, -2, -1, 1, 2, 3, 4))
_SHIFTS = tuple((a * s, b * s) for s in (0.2, 0.1) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1)))
# Luma weights, applied to normalised channels as the public code does.
_GREY = (0.299, 0.587, 0.114)
# The image itself, rotations, shifts, the flip, grey, three quarter turns.
VIEWS = 1 + len(_ANGLES) + len(_SHIFTS) + 1 + 1 + 3
# Images whose views are in one pass of the tower: bounds memory, changes nothing else.
_IMAGES_OF_VIEWS = 64 // VIEWS


@dataclass(frozen=True)
class Config(AdaptationConfig):
    """Hold AnoCLIP's settings; the defaults are those of the published script for MVTec AD."""

    # Fit an adapter to each image before its map is made: AnoCLIP+.
    adapt: bool = False
    # Class tokens averaged for the image score. 1 is 22 times cheaper; maps are the same, so a detector whose image
    # score comes from the map alone (the bundled backbone) gains nothing from 22.
    views: Literal[1, 22] = 22
    # Resize to a square, or keep the aspect and cut square tiles.
    geometry: Literal["squash", "wide"] = "squash"
    # First block of the value-to-value stream, from 1; None: all blocks, or the last 12 of more.
    start: int | None = None
    # Prompts for a texture; None: by the published list of five names.
    texture: bool | None = None


@dataclass(frozen=True)
class PlusConfig(Config):
    """Hold AnoCLIP+'s settings: the adaptation is on."""

    adapt: bool = True


@dataclass
class TileFeatures(RandomFeatures):
    """Hold features of images cut into square tiles; in `dense` their token grids lie side by side as the tiles do."""

    # [B, V, E] class tokens of all tiles and views, `cls` first; None: `cls` is the only one.
    classes: Tensor | None = None
    # H, W of the pixels that the tiles were cut from.
    extent: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class TextSide:
    """Hold what images are compared with."""

    # The object's name.
    name: str
    # [2, E] T: unit vectors, normal and abnormal.
    pair: Tensor
    # [P, E] unit sentence embeddings, normal first: the adapter's dictionary.
    table: Tensor

    @property
    def direction(self) -> Tensor:
        """Return g = t_abnormal − t_normal [E]."""
        return self.pair[1] - self.pair[0]


@register("anoclip", title="AnoCLIP: domain-aware prompts, V-V tokens", source=_SOURCE, year=2023, config=Config)
@register("anoclip+", title="AnoCLIP+: with test-time adaptation", source=_SOURCE, year=2023, config=PlusConfig)
class AnoCLIP(Method):
    """Implement AnoCLIP, and AnoCLIP+ with `config.adapt`. Map and score are probabilities near ½: never cut at 0.5."""

    config: Config
    interpolation = "bilinear"
    # Where real photographs lie (MVTec AD, ViT-B/16-plus: 0.471 to 0.490).
    heat_range = (0.47, 0.50)
    score_only_options: ClassVar[tuple[str, ...]] = ("views",)

    def __init__(self, clip: ClipConfig, config: Config) -> None:
        super().__init__(clip, config)
        self.geometry = "shorter-side" if config.geometry == "wide" else "squash"
        start = config.start or max(1, clip.vision.layers - 11)
        self.dense = (Dense("value-value", start).resolve(clip.vision.layers),)
        self._carried: dict[str, AdamW] = {}

    @property
    def ordered(self) -> bool:
        """Return True with one optimiser for all images, as the published code has it."""
        return self.config.adapt and self.config.carry_optimizer

    def text(self, encoder: PromptEncoder, name: str) -> TextSide:
        """Encode 924 sentences at once: their raw means give the pair, their unit rows the dictionary."""
        ensemble = ensembles.anoclip(name, self.config.texture)
        raw = encoder(ensemble.prompts)
        return TextSide(name, ensemble.directions(raw), F.normalize(raw, dim=-1))

    def encode(self, clip: Clip, pixels: Tensor, keys: Sequence[int] = ()) -> TileFeatures:
        """Encode normalised pixels [B, 3, H, W]: one dual-path pass, and class tokens of 21 further views.

        Without `keys` the pixels themselves are the key of the adaptation's random numbers. Raises ConfigError for
        images that are not square where the geometry is "squash".
        """
        extent = (pixels.shape[-2], pixels.shape[-1])
        if self.config.geometry == "squash" and extent[0] != extent[1]:
            raise ConfigError(
                f"image of {extent[1]} x {extent[0]} pixels, but geometry 'squash' takes squares: "
                "resize it to a square or use geometry 'wide'"
            )
        if self.config.adapt and not keys:
            keys = [content_key(image.detach().float().cpu().numpy()) for image in pixels]
        tiles, layout = cut(pixels)
        encoded: Features = clip.visual(tiles, self.dense, positions=self.positions, level_taps=self.level_taps)
        classes = cast(Tensor, encoded.cls).unsqueeze(1)
        if self.config.views > 1:
            classes = torch.cat([classes, self._further_views(clip, tiles)], dim=1)
        classes = classes.reshape(pixels.shape[0], -1, classes.shape[-1])  # [B, T * views, E]
        return TileFeatures(
            cls=classes[:, 0],
            dense=((join(encoded.dense[0][0], encoded.grid, layout),),),
            grid=(layout[0] * encoded.grid[0], layout[1] * encoded.grid[1]),
            # Of one tile, which is the whole image unless it is wide.
            levels=encoded.levels if layout == (1, 1) else (),
            keys=tuple(keys),
            classes=classes,
            extent=extent,
        )

    def score(self, features: TileFeatures, text: TextSide, size: tuple[int, int]) -> ScoreMap:
        """Score [B]: σ(f̂·g) averaged over class tokens. Map [B, *size]: σ(ẑ·g) over tokens, smoothed and enlarged."""
        classes = cast(Tensor, features.cls).unsqueeze(1) if features.classes is None else features.classes
        tokens = self.adapted(features, text) if self.config.adapt else features.dense[0][0]
        grid = _abnormal(tokens, text.direction).view(-1, *features.grid)
        if self.config.geometry == "wide":
            rows, columns = self._tile_operators(features, size, mean3=True)
        else:
            rows, columns = operators(grid, size, align_corners=True, mean3=True)
        return ScoreMap(_abnormal(classes, text.direction).mean(dim=1), apply(rows, grid, columns))

    def adapted(self, features: TileFeatures, text: TextSide) -> Tensor:
        """Return the tokens [B, N, E] after the test-time adaptation, each image's by itself.

        Raises ConfigError where there is not one content key for each image.
        """
        tokens = features.dense[0][0]
        table = text.table if self.config.adapter == "dictionary" else None
        drawn = features.drawn or self._drawn(features, len(text.table))
        # The code takes the loss over merged pixels where an image is cut into tiles, over tokens otherwise.
        wide = self.config.geometry == "wide"
        spread = self._tile_operators(features, features.extent, mean3=False) if wide else None
        carried = self._carried.setdefault(text.name, AdamW()) if self.config.carry_optimizer else None
        # Carried moments go from one image to the next, so these must follow one another. On a CPU one image's
        # activations fit into the caches and a batch's do not.
        single = self.config.carry_optimizer or tokens.device.type == "cpu"
        groups = zip(*(chunks(part, 1 if single else len(tokens)) for part in (tokens, *drawn)), strict=True)
        parts = [
            adapt(z, text.direction, (weight, bias), noise, self.config, table=table, spread=spread, optimizer=carried)
            for z, weight, bias, noise in groups
        ]
        return torch.cat([part.tokens for part in parts])

    def export_traits(self, size: int) -> ExportTraits:
        """Refuse what ties images to their order or aspect; keep views and random numbers to one size."""
        unexportable = one_size = None
        if self.ordered:
            unexportable = "carry_optimizer keeps a memory from image to image, and a graph has none"
        elif self.config.geometry == "wide":
            unexportable = "geometry 'wide' keeps the aspect, so images differ in size, and a graph has one size"
        if self.config.views > 1:
            one_size = f"its {VIEWS} views are sampled on grids made for one size; use views=1"
        elif self.config.adapt:
            one_size = "the adaptation takes as many random numbers as there are tokens"
        draws = None
        if self.config.adapt:
            draws = self._draws((size // self.clip.vision.patch) ** 2, len(ensembles.anoclip("object").prompts))
        return ExportTraits(
            unexportable, one_size, batch_limit=_IMAGES_OF_VIEWS if self.config.views > 1 else None, draws=draws
        )

    def _draws(self, tokens: int, sentences: int) -> Draws:
        config, width = self.config, self.clip.joint
        rows = sentences if config.adapter == "dictionary" else width
        return Draws(rows, tokens, width, config.steps, config.noise, config.seed)

    def _drawn(self, features: TileFeatures, sentences: int) -> tuple[Tensor, ...]:
        """Draw the adapter's weights and biases and the noise of all steps."""
        tokens = features.dense[0][0]
        if len(features.keys) != len(tokens):
            raise ConfigError(
                f"{len(features.keys)} content keys for {len(tokens)} images: the adaptation draws its random numbers "
                "from them, so give encode one key an image"
            )
        draws = self._draws(tokens.shape[1], sentences)
        return tuple(torch.from_numpy(part).to(tokens) for part in draws.draw(features.keys))

    def _further_views(self, clip: Clip, pixels: Tensor) -> Tensor:
        """Return class tokens [B, 21, E] of all views but the identity: ordinary attention only, no dense stream."""
        tokens = []
        for part in chunks(pixels, _IMAGES_OF_VIEWS):
            others = views(part)[:, 1:]
            cls = clip.visual(others.flatten(0, 1), positions=self.positions).cls
            tokens.append(cls.view(*others.shape[:2], -1))
        return torch.cat(tokens)

    def _tile_operators(self, features: TileFeatures, size: tuple[int, int], *, mean3: bool) -> Operators:
        """Return the map operators from the token grid of tiles to `size`."""
        side, device = min(features.extent), features.dense[0][0].device
        rows, columns = (
            tile_merger(count // len(tile_starts(length, side)), side, length, target, mean3=mean3, device=device)
            for count, length, target in zip(features.grid, features.extent, size, strict=True)
        )
        return rows, columns


def _abnormal(embeddings: Tensor, direction: Tensor) -> Tensor:
    """Compute p = σ(f̂·g), the two-way softmax at temperature 1: [..., E] -> [...]."""
    return torch.sigmoid(F.normalize(embeddings, dim=-1) @ direction)


def views(pixels: Tensor) -> Tensor:
    """Make the 22 views of square images: normalised pixels [B, 3, S, S] -> [B, 22, 3, S, S].

    Order: identity; rotations by ±1..4 sixteenths of π, ascending; shifts by 0.2, then 0.1 half sides in the four
    diagonal directions; flip; grey; quarter turns 1, 2, 3 counter-clockwise.
    """
    images, channels, side, _ = pixels.shape
    grids = _sampling_grids(side, pixels.device, pixels.dtype)
    # All images share the grids, so they go in as channels of one image.
    stacked = pixels.reshape(1, images * channels, side, side).expand(len(grids), -1, -1, -1)
    warped = F.grid_sample(stacked, grids, mode="bilinear", padding_mode="reflection", align_corners=True)
    grey = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(_GREY)).unsqueeze(1).expand_as(pixels)
    exact = [pixels.flip(-1), grey, *(pixels.rot90(turns, (-2, -1)) for turns in (1, 2, 3))]
    return torch.cat(
        [
            pixels.unsqueeze(1),
            warped.view(len(grids), images, channels, side, side).transpose(0, 1),
            torch.stack(exact, dim=1),
        ],
        dim=1,
    )


@lru_cache(maxsize=8)
def _sampling_grids(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return where the rotated and shifted views read the image: [16, S, S, 2] in the [-1, 1] frame."""
    turned = [[[math.cos(a), -math.sin(a), 0.0], [math.sin(a), math.cos(a), 0.0]] for a in _ANGLES]
    shifted = [[[1.0, 0.0, a], [0.0, 1.0, b]] for a, b in _SHIFTS]
    with torch.inference_mode(False):
        matrices = torch.tensor(turned + shifted, dtype=dtype, device=device)
        return F.affine_grid(matrices, [len(matrices), 1, side, side], align_corners=True)


def cut(pixels: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Cut square tiles of the shorter side: [B, 3, H, W] -> [B * T, 3, S, S], row-major by image, and their layout."""
    side = min(pixels.shape[-2:])
    tops, lefts = (tile_starts(extent, side) for extent in pixels.shape[-2:])
    tiles = [pixels[..., top : top + side, left : left + side] for top in tops for left in lefts]
    return torch.stack(tiles, dim=1).flatten(0, 1), (len(tops), len(lefts))


def join(tokens: Tensor, grid: tuple[int, int], layout: tuple[int, int]) -> Tensor:
    """Lay the grids of tiles side by side: [B * T, h * w, E] -> tokens [B, N, E] of one grid, row-major."""
    parts = tokens.view(-1, *layout, *grid, tokens.shape[-1])  # [B, down, across, h, w, E]
    return parts.transpose(2, 3).reshape(parts.shape[0], -1, tokens.shape[-1])
