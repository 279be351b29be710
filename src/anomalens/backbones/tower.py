"""The dual encoder (Radford et al. 2021), written once: an image tower with dense streams, a text tower, both fused.

Parameter names are those of OpenAI's state dict (`visual.…` for the image tower; the text tower's names stand at the
root there and under `text.` here), so published checkpoints load without a table of exceptions.

Shapes: B images, H W pixels, h w patch grid, N = h*w tokens, D tower width, E joint width, L = 1 + N rows, P prompts.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.backbones.attention import fused_attention
from anomalens.backbones.config import Activation, ClipConfig
from anomalens.backbones.resampling import cubic, is_open, linear
from anomalens.backbones.stem import PatchConvolution, build_stem
from anomalens.backbones.streams import ATTENTIONS, Dense
from anomalens.errors import ConfigError
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat

Positions = Literal["bilinear", "bicubic"]

# Windows run as many short sequences; this bounds the rows of one pass, hence its memory (about 60 MB at D = 896).
_WINDOW_ROWS = 16_384


@dataclass
class Features:
    """What one pass of the image tower gave; tensors are float32 whatever the tower's precision."""

    cls: Tensor | None  # [B, E] class token in the joint space, not normalised
    dense: tuple[tuple[Tensor, ...], ...]  # per request, per tap: [B, N, E] or, unprojected, [B, N, D]
    grid: tuple[int, int]  # h, w


class QuickGELU(nn.Module):
    """x σ(1.702 x), the activation of OpenAI's weights."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element, any shape."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head projections, apart from the attention itself, which differs by stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, L, D] -> queries, keys and values, each [B, heads, L, D / heads]."""
        b, rows, width = x.shape
        packed = F.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = packed.view(b, rows, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        return q, k, v

    def values(self, x: Tensor) -> Tensor:
        """The values alone: [B, L, D] -> [B, L, D]."""
        width = x.shape[-1]
        return F.linear(x, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])

    def merge(self, heads: Tensor) -> Tensor:
        """Joins the heads and projects: [B, heads, L, d] -> [B, L, D]."""
        return cast(Tensor, self.out_proj(heads.transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """A pre-LayerNorm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(
                c_fc=nn.Linear(width, hidden),
                gelu=QuickGELU() if activation == "quick_gelu" else nn.GELU(),
                c_proj=nn.Linear(hidden, width),
            )
        )

    def feed_forward(self, x: Tensor) -> Tensor:
        """The second half of the block, residual included: [B, L, D] -> [B, L, D]."""
        return cast(Tensor, x + self.mlp(self.ln_2(x)))

    def forward(self, x: Tensor, rows: slice = slice(None), causal: bool = False) -> Tensor:
        """The whole block for the rows asked; keys and values come from all rows. [B, L, D] -> [B, rows, D]."""
        q, k, v = self.attn.qkv(self.ln_1(x))
        mixed = fused_attention(q[:, :, rows], k, v, is_causal=causal)
        return self.feed_forward(x[:, rows] + self.attn.merge(mixed))


class Transformer(nn.Module):
    """A stack of blocks under the name checkpoints give it."""

    def __init__(self, width: int, layers: int, heads: int, mlp_ratio: float, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, mlp_ratio, activation) for _ in range(layers))

    @property
    def blocks(self) -> list[Block]:
        """The blocks in order."""
        return [cast(Block, block) for block in self.resblocks]


def resize_positions(table: Tensor, grid: tuple[int, int], mode: Positions) -> Tensor:
    """Position table [1 + G², D] -> [1 + h*w, D]; the class row stays, the grid is interpolated (corners not aligned).

    "bicubic" is antialiased, which also fixes the cubic coefficient at -0.5 (open_clip, APRIL-GAN); "bilinear" is
    not (AnomalyCLIP, Crane). The table is never changed in place, so sizes may follow one another in any order.
    """
    side = round((table.shape[0] - 1) ** 0.5)
    if is_open(*grid):
        rows, columns = (cubic(side, n) if mode == "bicubic" else linear(side, n) for n in grid)
        # Two products of plain matrices: not every runtime multiplies open shapes of unequal rank.
        down = (rows @ table[1:].float().view(side, -1)).view(grid[0], side, -1).transpose(0, 1)
        across = (columns @ down.reshape(side, -1)).view(grid[1], grid[0], -1).transpose(0, 1)
        return torch.cat([table[:1], across.flatten(0, 1).to(table.dtype)])
    if grid == (side, side):
        return table
    square = table[1:].float().T.reshape(1, -1, side, side)
    resized = F.interpolate(square, size=grid, mode=mode, align_corners=False, antialias=mode == "bicubic")
    return torch.cat([table[:1], resized[0].flatten(1).T.to(table.dtype)])


class ImageTower(nn.Module):
    """Images to a class token and the dense streams asked for, in one pass that computes nothing nobody reads."""

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
        """The precision the tower computes in."""
        return self.proj.dtype

    def patches(self, pixels: Tensor) -> Tensor:
        """Normalised pixels [B, 3, H, W] -> patch embeddings [B, D, h, w], before positions.

        Raises ConfigError where a side is no multiple of the patch: cutting pixels off would go unnoticed.
        """
        height, width = pixels.shape[-2:]
        if height % self.patch or width % self.patch:
            raise ConfigError(
                f"image of {width} x {height} pixels: both sides must be multiples of the patch side {self.patch}"
            )
        patchify = cast(nn.Module, self.stem or self.conv1)
        return cast(Tensor, patchify(pixels.to(self.dtype)))

    def embed(
        self, pixels: Tensor, positions: Positions = "bicubic", patches: Tensor | None = None
    ) -> tuple[Tensor, tuple[int, int]]:
        """Normalised pixels [B, 3, H, W], or their patch embeddings where they are known -> rows [B, 1 + N, D] after
        ln_pre, and the grid (h, w)."""
        patches = self.patches(pixels) if patches is None else patches
        grid = (patches.shape[-2], patches.shape[-1])
        head = self.class_embedding.expand(patches.shape[0], 1, -1)
        rows = torch.cat([head, patches.flatten(2).transpose(1, 2)], dim=1)
        return self.ln_pre(rows + resize_positions(self.positional_embedding, grid, positions)), grid

    def project(self, x: Tensor, norm: bool = True) -> Tensor:
        """Final LayerNorm (unless `norm` is off, as AnomalyCLIP reads the class token) and projection, in float32:
        [..., D] -> [..., E]."""
        x = x.float()
        if norm:
            weight, bias = self.ln_post.weight.float(), self.ln_post.bias.float()
            x = F.layer_norm(x, (self.width,), weight, bias, self.ln_post.eps)
        return x @ self.proj.float()

    def forward(
        self,
        pixels: Tensor,
        dense: Sequence[Dense] = (),
        *,
        cls: Literal["normed", "raw"] | None = "normed",
        positions: Positions = "bicubic",
        guide: Tensor | None = None,
        prompts: Tensor | None = None,
        patches: Tensor | None = None,
    ) -> Features:
        """One pass over a batch.

        Args:
            pixels: [B, 3, H, W], normalised by the weights' own mean and std; sides multiples of the patch.
            dense: the streams to read; each block computes only those that still need it.
            cls: "normed" = ln_post and projection (CLIP), "raw" = projection alone (AnomalyCLIP), None = not read.
            positions: how the position table reaches another grid.
            guide: [B, N, N] attention over patches for a guided stream (rows sum to 1).
            prompts: [B or 1, J, M, D] prompt tokens: those of layer 0 are appended after ln_pre, those of layers
                1..J-1 replace them before their block (AdaCLIP).
            patches: what `patches` gives for these pixels, where a method has asked for it already.

        Raises:
            ConfigError: sides, taps or the guide do not fit.
        """
        requests = [d.resolve(self.layers) for d in dense]
        guided = any(d.stream == "guided" for d in requests)
        if guided != (guide is not None):
            raise ConfigError("a guided stream and its attention matrix must be given together")
        x, grid = self.embed(pixels, positions, patches)
        count = grid[0] * grid[1]
        if guide is not None and guide.shape[-2:] != (count, count):
            raise ConfigError(f"guide {tuple(guide.shape)} does not fit {count} patches")
        depth = self.layers if cls or guided else max((t for d in requests for t in d.taps), default=0)
        plain_taps = {t for d in requests if d.stream == "plain" for t in d.taps}
        state: list[Tensor | None] = [None] * len(requests)
        found: list[dict[int, Tensor]] = [{} for _ in requests]

        for number, block in enumerate(self.transformer.blocks[:depth], start=1):
            x = _place_prompts(x, prompts, number - 1, 1 + count)
            q, k, v = block.attn.qkv(block.ln_1(x))
            for i, want in enumerate(requests):
                if want.stream not in ATTENTIONS or not want.start <= number <= max(want.taps):
                    continue
                rows = slice(0 if want.class_row else 1, 1 + count)
                before = state[i]
                gathered = block.attn.merge(ATTENTIONS[want.stream](q, k, v, rows))
                state[i] = (x[:, rows] if before is None else before) + gathered
                if number in want.taps:
                    found[i][number] = cast(Tensor, state[i])
            final = number == depth
            # In the last block only the class row is read, unless a plain tap or the guided values need the patches.
            wide = not final or guided or number in plain_taps
            if final and not wide and not cls:
                break
            rows = slice(None) if wide else slice(0, 1)
            x = x[:, rows] + block.attn.merge(fused_attention(q[:, :, rows], k, v))
            if final and guide is not None:
                values = block.attn.values(block.ln_1(x[:, 1 : 1 + count]))
                mixed = block.attn.out_proj(guide.to(values.dtype) @ values)
                for i, want in enumerate(requests):
                    if want.stream == "guided":
                        found[i][number] = mixed
            x = block.feed_forward(x if not final or number in plain_taps else x[:, :1])
            for i, want in enumerate(requests):
                if want.stream == "plain" and number in want.taps:
                    found[i][number] = x[:, (0 if want.class_row else 1) : 1 + count]

        tokens = tuple(
            tuple(self.project(taps[t]) if want.project else taps[t].float() for t in want.taps)
            for want, taps in zip(requests, found, strict=True)
        )
        return Features(self.project(x[:, 0], norm=cls == "normed") if cls else None, tokens, grid)

    def windows(self, pixels: Tensor, index: Tensor, positions: Positions = "bicubic") -> Tensor:
        """Class tokens of windows: every window keeps the patches of its row of `index` and drops the others.

        Args:
            pixels: [B, 3, H, W], normalised.
            index: [M, K] patch numbers (row-major) of each of M windows.

        Returns:
            [B, M, E], not normalised (WinCLIP, section 3.2 of arXiv 2303.14814).
        """
        x, _ = self.embed(pixels, positions)
        out = []
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
            read = self.project(last(rows, rows=slice(0, 1))[:, 0])
            out.append(read.view(*patches.shape[:2], -1))
        return torch.cat(out, dim=1)


def _place_prompts(x: Tensor, prompts: Tensor | None, layer: int, rows: int) -> Tensor:
    if prompts is None or layer >= prompts.shape[1]:
        return x
    return torch.cat([x[:, :rows], prompts[:, layer].expand(x.shape[0], -1, -1).to(x.dtype)], dim=1)


class TextTower(nn.Module):
    """Token ids, or embeddings that were learned in their place, to text features."""

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
        """Token ids [P, context], zero-padded -> [P, E] float32, not normalised.

        The end-of-text token is the largest id; under the causal mask nothing behind it matters, so the context is
        cut behind the last one (exact).
        """
        end = ids.argmax(dim=-1)
        return self.encode(self.token_embedding(ids[:, : int(end.max()) + 1]), end)

    def encode(self, x: Tensor, end: Tensor, deep: Tensor | None = None) -> Tensor:
        """Embeddings [P, l, D] without positions -> [P, E] float32 read at rows `end` [P], not normalised.

        `deep` [depth, length, D]: before block 2, 3, … rows 1..length are overwritten by deep[0], deep[1], …
        (positions are not added again; AnomalyCLIP section 3, Crane).
        """
        x = x + self.positional_embedding[: x.shape[1]]
        for number, block in enumerate(self.transformer.blocks):
            if deep is not None and 1 <= number <= deep.shape[0]:
                inserted = deep[number - 1].to(x.dtype).expand(x.shape[0], -1, -1)
                x = torch.cat([x[:, :1], inserted, x[:, 1 + inserted.shape[1] :]], dim=1)
            x = block(x, causal=True)
        rows = x[torch.arange(x.shape[0], device=x.device), end].float()
        weight, bias = self.ln_final.weight.float(), self.ln_final.bias.float()
        rows = F.layer_norm(rows, (self.width,), weight, bias, self.ln_final.eps)
        return rows @ self.text_projection.float()


class Clip(nn.Module):
    """Both towers. `visual` reads images, `text` reads prompts; they meet in E dimensions.

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
        model.load_state_dict({from_canonical(k): v for k, v in state.items()}, strict=True, assign=True)
        return model.eval().requires_grad_(False)

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """The weights in OpenAI's names: the inverse of `from_state_dict`."""
        return {k.removeprefix("text."): v for k, v in self.state_dict().items()}


def from_canonical(name: str) -> str:
    """OpenAI's name of a tensor -> its name in `Clip`."""
    return name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}"
