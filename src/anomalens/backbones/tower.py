"""Build the dual encoder (Radford et al. 2021): an image tower with dense streams, a text tower, and both as one.

Parameter names are those of OpenAI's state dict (`visual.…` for the image tower; the text tower's names stand at the
root there and under `text.` here), so published checkpoints load without a table of exceptions.

Shapes: B images, H W pixels, h w patch grid, N = h*w tokens, D tower width, E joint width, L = 1 + N rows, P prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.resampling import cubic, cubic_unfiltered, is_open, linear
from anomalens.backbones.stem import LiteStem, PatchConvolution, build_stem
from anomalens.backbones.streams import Dense, Reading
from anomalens.backbones.transformer import Transformer, layer_norm
from anomalens.errors import ConfigError
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat

Positions = Literal["bilinear", "bicubic", "bicubic-unfiltered"]

_ALONG_A_SIDE = {"bilinear": linear, "bicubic": cubic, "bicubic-unfiltered": cubic_unfiltered}

# Windows run as many short sequences; this bounds the rows of one pass, hence its memory (about 60 MB at D = 896).
_WINDOW_ROWS = 16_384


@dataclass
class Features:
    """Hold the result of one pass of the image tower; tensors are float32 whatever the tower's precision."""

    # [B, E] class token in the joint space, not normalised.
    cls: Tensor | None
    # Per request, per tap: [B, N, E] or, unprojected, [B, N, D].
    dense: tuple[tuple[Tensor, ...], ...]
    # h, w: rows and columns of patches.
    grid: tuple[int, int]
    # What photographs are compared by: grids of features [B, C, h', w'], each of its own size. Of a convolutional stem
    # its whitened channels, from fine to coarse; of another tower its patch tokens after the taps asked for.
    levels: tuple[Tensor, ...] = ()


class Embedded(NamedTuple):
    """Hold embedded patches, to be handed to `ImageTower.forward` where a method needs them before."""

    # [B, D, h, w], without positions.
    patches: Tensor
    # The levels of a convolutional stem, in the tower's precision; none for a tower without such a stem.
    levels: tuple[Tensor, ...] = ()


def resize_positions(table: Tensor, grid: tuple[int, int], mode: Positions, antialias: bool | None = None) -> Tensor:
    """Interpolate a position table, corners not aligned; the class row stays: [1 + G², D] -> [1 + h*w, D].

    Unless said otherwise "bicubic" is antialiased, which also fixes the cubic coefficient at -0.5 (open_clip,
    APRIL-GAN); "bicubic-unfiltered" (AdaCLIP, coefficient -0.75) and "bilinear" (AnomalyCLIP, Crane) are not. The table
    is never changed in place, so sizes may follow one another in any order.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if is_open(*grid):
        rows, columns = (_ALONG_A_SIDE[mode](side, n) for n in grid)
        # Two products of plain matrices: not every runtime multiplies open shapes of unequal rank.
        down = (rows @ table[1:].float().view(side, -1)).view(grid[0], side, -1).transpose(0, 1)
        across = (columns @ down.reshape(side, -1)).view(grid[1], grid[0], -1).transpose(0, 1)
        return torch.cat([table[:1], across.flatten(0, 1).to(table.dtype)])
    if grid == (side, side):
        return table
    square = table[1:].float().T.reshape(1, -1, side, side)
    filtered = mode == "bicubic" if antialias is None else antialias
    kind = mode.removesuffix("-unfiltered")
    resized = F.interpolate(square, size=grid, mode=kind, align_corners=False, antialias=filtered)
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


class ImageTower(nn.Module):
    """Encode images as a class token and the dense streams asked for, in one pass that computes only what is read."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        vision = config.vision
        self.patch, self.width, self.layers = vision.patch, vision.width, vision.layers
        self.stem = build_stem(vision.stem, vision.width) if vision.stem else None
        self.conv1 = None if self.stem else PatchConvolution(vision.width, vision.patch)
        self.class_embedding = nn.Parameter(torch.randn(vision.width) * vision.width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(vision.grid**2 + 1, vision.width) * vision.width**-0.5)
        self.ln_pre = nn.LayerNorm(vision.width)
        self.transformer = Transformer(vision.width, vision.layers, vision.heads, vision.mlp_ratio, config.activation)
        self.ln_post = nn.LayerNorm(vision.width)
        self.proj = nn.Parameter(torch.randn(vision.width, config.joint) * vision.width**-0.5)

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision the tower computes in."""
        return self.proj.dtype

    def patches(self, pixels: Tensor) -> Embedded:
        """Embed the patches of normalised pixels [B, 3, H, W], without positions.

        Raises ConfigError where a side is no multiple of the patch: cutting pixels off would go unnoticed.
        """
        height, width = pixels.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"image of {width} x {height} pixels: both sides must be multiples of the patch side {self.patch}"
            )
        pixels = pixels.to(self.dtype)
        if isinstance(self.stem, LiteStem):
            gathered, levels = self.stem.read(pixels)
            return Embedded(self.stem.fuse(gathered), levels)
        patchify = cast(nn.Module, self.stem or self.conv1)
        return Embedded(patchify(pixels))

    def embed(self, patches: Tensor, positions: Positions = "bicubic") -> tuple[Tensor, tuple[int, int]]:
        """Return the rows the first block takes [B, 1 + N, D], of patches [B, D, h, w], and the grid (h, w)."""
        grid = (patches.shape[-2], patches.shape[-1])
        head = self.class_embedding.expand(patches.shape[0], 1, -1)
        rows = torch.cat([head, patches.flatten(2).transpose(1, 2)], dim=1)
        return self.ln_pre(rows + resize_positions(self.positional_embedding, grid, positions)), grid

    def project(self, x: Tensor, norm: bool = True) -> Tensor:
        """Bring rows to the joint space, in float32: [..., D] -> [..., E]. `norm` applies the final LayerNorm first;
        AnomalyCLIP reads the class token without it."""
        return (layer_norm(self.ln_post, x) if norm else x.float()) @ self.proj.float()

    def forward(
        self,
        pixels: Tensor | None,
        dense: Sequence[Dense] = (),
        *,
        cls: Literal["normed", "raw"] | None = "normed",
        positions: Positions = "bicubic",
        guide: Tensor | None = None,
        prompts: Tensor | None = None,
        embedded: Embedded | None = None,
        level_taps: Sequence[int] = (),
    ) -> Features:
        """Run one pass over a batch.

        Args:
            pixels: [B, 3, H, W], normalised by the weights' own mean and std; sides multiples of the patch. They may
                be None where `embedded` is given.
            dense: the streams to read; each block computes only those that still need it.
            cls: "normed" = ln_post and projection (CLIP), "raw" = projection alone (AnomalyCLIP), None = not read.
            positions: how the position table reaches another grid.
            guide: [B, N, N] attention over patches for a guided stream (rows sum to 1).
            prompts: [B or 1, J, M, D] prompt tokens: those of layer 0 are appended after ln_pre, those of layers
                1..J-1 replace them before their block (AdaCLIP).
            embedded: the result of `patches` for these pixels, where a method has it already.
            level_taps: blocks, counted from 1, whose patch tokens (as they leave the block, no LayerNorm, no
                projection) are `Features.levels` of a tower without a convolutional stem; such a stem needs none.

        Raises:
            ConfigError: sides, taps or the guide do not fit.
        """
        asked = len(dense)
        extra = (Dense("plain", 1, tuple(level_taps), project=False),) if level_taps and self.stem is None else ()
        requests = [d.resolve(self.layers) for d in (*dense, *extra)]
        if any(d.stream == "guided" for d in requests) != (guide is not None):
            raise ConfigError("a guided stream and its attention matrix must be given together")
        if embedded is None:
            assert pixels is not None
            embedded = self.patches(pixels)
        patches, levels = embedded
        x, grid = self.embed(patches, positions)
        count = grid[0] * grid[1]
        if guide is not None and guide.shape[-2:] != (count, count):
            raise ConfigError(f"guide {tuple(guide.shape)} does not fit {count} patches")
        readings = [Reading(d, slice(0 if d.class_row else 1, 1 + count)) for d in requests]
        depth = self.layers if cls or guide is not None else max((t for d in requests for t in d.taps), default=0)
        plain_taps = {t for d in requests if d.stream == "plain" for t in d.taps}
        end_is_read = cls is not None or guide is not None or depth in plain_taps

        for number, block in enumerate(self.transformer.blocks[:depth], start=1):
            x = _place_prompts(x, prompts, number - 1, 1 + count)
            qkv = block.project(x)
            for reading in readings:
                reading.gather(number, block, x, qkv)
            if number == depth and not end_is_read:
                break
            # After the last block only the class row is read, unless a plain tap needs the patches.
            rows = slice(None) if number < depth or number in plain_taps else slice(0, 1)
            # A guided stream reads all patches in the middle of the last block.
            x = block.attend(x, qkv, rows if guide is None else slice(None))
            if guide is not None and number == depth:
                for reading in readings:
                    reading.read_guided(number, block, x, guide)
            x = block.feed_forward(x[:, rows])
            for reading in readings:
                reading.read_plain(number, x)

        tokens = tuple(
            tuple(self.project(part) if reading.request.project else part.float() for part in reading.in_order())
            for reading in readings
        )
        if extra:
            levels = tuple(part.transpose(1, 2).reshape(part.shape[0], -1, *grid) for part in tokens[-1])
        class_token = self.project(x[:, 0], norm=cls == "normed") if cls else None
        return Features(class_token, tokens[:asked], grid, tuple(level.float() for level in levels))

    def windows(self, pixels: Tensor, index: Tensor, positions: Positions = "bicubic") -> Tensor:
        """Read class tokens of windows: each window keeps the patches of its row of `index` and drops the others.

        Args:
            pixels: [B, 3, H, W], normalised.
            index: [M, K] patch numbers (row-major) of each of M windows.

        Returns:
            [B, M, E], not normalised (WinCLIP, section 3.2 of arXiv 2303.14814).
        """
        x, _ = self.embed(self.patches(pixels).patches, positions)
        tokens = []
        step = len(index)
        if not torch.compiler.is_compiling():  # a graph takes batches of any size, so it cannot be cut by size
            step = max(1, _WINDOW_ROWS // (x.shape[0] * (1 + index.shape[1])))
        for part in torch.split(index, step):
            patches = x[:, 1:][:, part]  # [B, m, K, D]
            rows = torch.cat([x[:, :1].unsqueeze(1).expand(-1, part.shape[0], -1, -1), patches], dim=2)
            rows = rows.flatten(0, 1)
            *blocks, last = self.transformer.blocks
            for block in blocks:
                rows = block(rows)
            joint = self.project(last(rows, rows=slice(0, 1))[:, 0])
            tokens.append(joint.view(*patches.shape[:2], -1))
        return torch.cat(tokens, dim=1)


def _place_prompts(x: Tensor, prompts: Tensor | None, layer: int, rows: int) -> Tensor:
    """Put the prompt tokens of a layer behind the first `rows` rows, in place of those of the layer before."""
    if prompts is None or layer >= prompts.shape[1]:
        return x
    return torch.cat([x[:, :rows], prompts[:, layer].expand(x.shape[0], -1, -1).to(x.dtype)], dim=1)


class TextTower(nn.Module):
    """Encode token ids, or embeddings learned in their place, as text features."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        text = config.text
        self.width = text.width
        self.token_embedding = nn.Embedding(text.vocab, text.width)
        self.positional_embedding = nn.Parameter(torch.randn(text.context, text.width) * 0.01)
        self.transformer = Transformer(text.width, text.layers, text.heads, 4.0, config.activation)
        self.ln_final = nn.LayerNorm(text.width)
        self.text_projection = nn.Parameter(torch.randn(text.width, config.joint) * text.width**-0.5)
        nn.init.normal_(self.token_embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids [P, context], zero-padded, as [P, E] float32, not normalised.

        The end-of-text token is the largest id; under the causal mask nothing behind it matters, so the context is
        cut behind the last of them (exact).
        """
        end = ids.argmax(dim=-1)
        return self.encode(self.token_embedding(ids[:, : int(end.max()) + 1]), end)

    def encode(self, x: Tensor, end: Tensor, deep: Tensor | None = None) -> Tensor:
        """Encode embeddings [P, l, D] without positions as [P, E] float32 read at rows `end` [P], not normalised.

        `deep` [depth, length, D] or [depth, P, length, D]: see `place_deep`.
        """
        x = x + self.positional_embedding[: x.shape[1]]
        for number, block in enumerate(self.transformer.blocks):
            x = block(place_deep(x, deep, number), causal=True)
        return self.project(x[torch.arange(x.shape[0], device=x.device), end])

    def project(self, x: Tensor) -> Tensor:
        """Apply the final LayerNorm and the projection to the joint space, in float32: [..., D] -> [..., E]."""
        return layer_norm(self.ln_final, x) @ self.text_projection.float()


def place_deep(x: Tensor, deep: Tensor | None, number: int) -> Tensor:
    """Overwrite rows 1..length of [P, l, D] by deep[number - 1] before block `number` of a text tower, counted from 0.

    The first block, and those beyond the depth of `deep`, keep their rows. Positions are not added again (AnomalyCLIP,
    section 3; Crane).
    """
    if deep is None or not 1 <= number <= deep.shape[0]:
        return x
    inserted = deep[number - 1].to(x.dtype).expand(x.shape[0], -1, -1)
    return torch.cat([x[:, :1], inserted, x[:, 1 + inserted.shape[1] :]], dim=1)


class Clip(nn.Module):
    """Join both towers: `visual` reads images, `text` reads prompts; their features share E dimensions.

    `pixels` says how the images that `visual` takes are normalised.
    """

    def __init__(self, config: ClipConfig, pixels: PixelFormat = CLIP_PIXELS) -> None:
        super().__init__()
        self.config, self.pixels = config, pixels
        self.visual = ImageTower(config)
        self.text = TextTower(config)
        self.logit_scale = nn.Parameter(torch.tensor(4.6052))  # ln 100

    @classmethod
    def from_state_dict(cls, config: ClipConfig, state: dict[str, Tensor], pixels: PixelFormat = CLIP_PIXELS) -> "Clip":
        """Build a model in eval mode with frozen weights from checked tensors in OpenAI's names."""
        with torch.device("meta"):
            model = cls(config, pixels)
        own = ("visual.", "logit_scale")  # all other tensors are the text tower's
        named = {name if name.startswith(own) else f"text.{name}": tensor for name, tensor in state.items()}
        model.load_state_dict(named, strict=True, assign=True)
        return model.eval().requires_grad_(False)

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """Return the weights in OpenAI's names: the inverse of `from_state_dict`."""
        return {k.removeprefix("text."): v for k, v in self.state_dict().items()}
