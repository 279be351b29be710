"""Embed pixels as patches: by CLIP's one strided convolution, or by a convolutional stem that is found by name."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from anomalens.errors import ConfigError


class PatchConvolution(nn.Module):
    """Embed patches as CLIP does: one convolution, kernel = stride = patch, no bias."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 3, patch, patch) * (3 * patch * patch) ** -0.5)
        self.patch = patch

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed patches: [B, 3, H, W] -> [B, D, h, w]."""
        return torch.conv2d(pixels, self.weight, stride=self.patch)


class SameConvolution(nn.Conv2d):
    """Convolve at stride 1 or 2, padded as TensorFlow's SAME: an odd pixel of padding goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B, C, H, W] -> [B, C', ceil(H / stride), ceil(W / stride)]."""
        k, s = self.kernel_size[0], self.stride[0]
        if s == 1:
            return super().forward(x)
        # In a graph the sides may be unknown, neither odd nor even, and exporters lose a weight that is padded.
        if torch.compiler.is_compiling():
            # Runtimes round a quotient towards zero, so none of them may be negative.
            high, wide = (max(((n + s - 1) // s - 1) * s + k - n, 0) for n in x.shape[-2:])
            return super().forward(F.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2)))
        # Padding all sides alike and a row of zeros before the kernel reads the same pixels as one-sided padding, and
        # spares copying the image, which is far larger than the kernel.
        high, wide = (1 - n % 2 for n in x.shape[-2:])
        kernel = F.pad(self.weight, (wide, 0, high, 0))
        return torch.conv2d(x, kernel, self.bias, s, k // 2, groups=self.groups)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project (Sandler et al. 2018), batch norms folded into the convolutions."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.expand = SameConvolution(inputs, hidden, 1) if expand > 1 else None
        self.filter = SameConvolution(hidden, hidden, kernel, stride, groups=hidden)
        self.project = SameConvolution(hidden, outputs, 1)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block: [B, C, H, W] -> [B, C', H / stride, W / stride]."""
        y = F.relu6(self.expand(x), inplace=True) if self.expand is not None else x
        y = self.project(F.relu6(self.filter(y), inplace=True))
        # In place throughout: at 448 pixels fresh memory costs more than the arithmetic.
        return cast(Tensor, y.add_(x) if self.residual else y)


class EfficientNetLite0(nn.Module):
    """Run the 16 blocks of EfficientNet-Lite0 (Tan & Le 2019; "lite": no squeeze-excite, ReLU6), without its head."""

    # (repeats, kernel, first stride, expansion, outputs)
    STAGES = (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
    TAPS = (2, 4, 10, 15)  # blocks whose outputs have stride 4, 8, 16 and 32
    CHANNELS = (24, 40, 112, 320)

    def __init__(self) -> None:
        super().__init__()
        self.first = SameConvolution(3, 32, 3, 2)
        blocks: list[nn.Module] = []
        inputs = 32
        for repeats, kernel, stride, expand, outputs in self.STAGES:
            for number in range(repeats):
                blocks.append(InvertedResidual(inputs, outputs, kernel, stride if number == 0 else 1, expand))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the features of TAPS, each [B, CHANNELS[i], H / s, W / s] with s = 4, 8, 16, 32, of [B, 3, H, W]."""
        x = F.relu6(self.first(pixels), inplace=True)
        features = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.TAPS:
                features.append(x)
        return tuple(features)


def novelty(features: Tensor, references: Tensor, *sharpness: float) -> Tensor:
    """Measure how unlike the rest of its image each place is: -(1/β) log mean_j exp(β (cos(f_i, r_j) - 1)).

    This is a soft nearest-neighbour distance in [0, 2]: with large β the most similar places count alone, with small β
    all of them. It is a mean over places, so it does not depend on the size of the image.

    Args:
        features: [B, C, H, W].
        references: [B, C, h, w] of the same image; each place is compared with all of them.
        sharpness: S values of β, at most 40 (the exponentials stay above float32's smallest number).

    Returns:
        [B, S, H, W] float32.
    """
    queries = F.normalize(features.flatten(2).float(), dim=1)
    keys = F.normalize(references.flatten(2).float(), dim=1)
    deficit = torch.baddbmm(queries.new_full((1, 1, 1), -1.0), queries.transpose(1, 2), keys)  # cos - 1
    distances = [(deficit * beta).exp_().mean(dim=2).log() / -beta for beta in sharpness]
    return torch.stack(distances, dim=1).view(features.shape[0], -1, *features.shape[2:])


def append_deviations(channels: Tensor) -> Tensor:
    """Append each channel in units of its spread over the image, mean removed: [B, C, h, w] -> [B, 2C, h, w]."""
    spread, mean = torch.std_mean(channels, dim=(2, 3), keepdim=True, unbiased=False)
    return torch.cat([channels, (channels - mean) / (spread + 0.02)], dim=1)


class LiteStem(nn.Module):
    """Read a frozen EfficientNet-Lite0 at four strides, with each place's novelty within its image, at stride 16.

    A defect differs from the rest of its image. A small transformer learns badly to see that on surfaces it never saw,
    so the comparison is computed for it, without parameters, at three strides (`novelty`). Everything before `proj` is
    fixed: `shift` and `scale` standardise the channels, `whiten` decorrelates those compared.

    The filters reach as far as those of ImageNet at 224 pixels. With `halved`, the same filters also read the picture
    at half its size: what they say of it at strides 8, 16 and 32, with its novelty, joins the channels on the same
    grid, so that a large part is seen whole as well as in pieces.
    """

    SHARPNESS = (8.0, 32.0)  # β of the two novelty channels at each stride
    COMPARED = (40, 64, 64)  # channels compared at strides 8, 16, 32

    def __init__(self, width: int, halved: bool = False) -> None:
        super().__init__()
        self.halved = halved
        c4, c8, c16, c32 = EfficientNetLite0.CHANNELS
        self.backbone = EfficientNetLite0()
        self.whiten = nn.ModuleList(
            nn.Conv2d(c, kept, 1) for c, kept in zip((c8, c16, c32), self.COMPARED, strict=True)
        )
        own = 2 * len(self.SHARPNESS) * (4 + 1 + 1)
        self.channels = 2 * c4 + 4 * c8 + c16 + c32 + own
        if halved:
            self.channels += c8 + c16 + c32 + 2 * len(self.SHARPNESS) * 3
        self.shift = nn.Parameter(torch.zeros(1, self.channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, self.channels, 1, 1))
        for fixed in self.fixed_parameters():
            fixed.requires_grad_(False)
        self.proj = nn.Conv2d(self.channels, width, 1)
        self.mix = nn.Conv2d(width, width, 3, padding=1)

    def fixed_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that no training step changes."""
        return [*self.backbone.parameters(), *self.whiten.parameters(), self.shift, self.scale]

    def gather(self, pixels: Tensor) -> Tensor:
        """Run the fixed part, not standardised: [B, 3, H, W], sides multiples of 16 -> [B, channels, h, w]."""
        return self.read(pixels)[0]

    def read(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Run the fixed part, as `gather`, and hand out the whitened channels it compares places by.

        Returns [B, channels, h, w], and [B, COMPARED[i], H / s, W / s] for the strides s = 8, 16, 32.
        """
        if pixels.device.type != "cpu" or torch.compiler.is_compiling():
            return self._read(pixels)
        # The early features of one image fit a CPU's caches, those of a batch do not.
        gathered, levels = zip(*(self._read(image) for image in torch.split(pixels, 1)), strict=True)
        return torch.cat(gathered), tuple(torch.cat(level) for level in zip(*levels, strict=True))

    def _read(self, pixels: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        f4, f8, f16, f32 = self.backbone(pixels.contiguous(memory_format=torch.channels_last))
        grid = f16.shape[-2:]
        w8, w16, w32 = (conv(f) for conv, f in zip(self.whiten, (f8, f16, f32), strict=True))
        fine = novelty(w8, F.avg_pool2d(w8, 2), *self.SHARPNESS)
        middle = novelty(w16, w16, *self.SHARPNESS)
        coarse = F.interpolate(novelty(w32, w32, *self.SHARPNESS), size=grid, mode="bilinear")
        # All channels of one β together, from fine to coarse.
        parts = zip(
            torch.split(F.pixel_unshuffle(fine, 2), 4, 1),
            torch.split(middle, 1, 1),
            torch.split(coarse, 1, 1),
            strict=True,
        )
        novelties = [part for strides in parts for part in strides]
        gathered = torch.cat(
            [
                F.max_pool2d(f4, 4),
                -F.max_pool2d(-f4, 4),
                F.pixel_unshuffle(f8, 2),
                f16,
                F.interpolate(f32, size=grid, mode="bilinear"),
                append_deviations(torch.cat(novelties, dim=1)).to(f16.dtype),
            ],
            dim=1,
        )
        if self.halved:
            gathered = torch.cat([gathered, self._read_halved(pixels, grid)], dim=1)
        return gathered, (w8, w16, w32)

    def _read_halved(self, pixels: Tensor, grid: torch.Size) -> Tensor:
        """Read the picture at half its size, where the stride of 8 has the grid that 16 has at full size.

        Returns [B, channels, *grid].
        """
        small = F.avg_pool2d(pixels, 2).contiguous(memory_format=torch.channels_last)
        _, *features = self.backbone(small)
        whitened = (conv(f) for conv, f in zip(self.whiten, features, strict=True))
        novelties = (novelty(w, w, *self.SHARPNESS) for w in whitened)

        def placed(middle: Tensor, *coarser: Tensor) -> Tensor:
            return torch.cat([middle, *(F.interpolate(part, size=grid, mode="bilinear") for part in coarser)], dim=1)

        return torch.cat([placed(*features), append_deviations(placed(*novelties)).to(pixels.dtype)], dim=1)

    def fuse(self, gathered: Tensor) -> Tensor:
        """Run the trained part: [B, channels, h, w] -> [B, D, h, w]."""
        x = self.proj((gathered - self.shift) * self.scale)
        return cast(Tensor, x + self.mix(F.gelu(x)))

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed normalised pixels, sides multiples of 16: [B, 3, H, W] -> [B, D, H / 16, W / 16]."""
        return self.fuse(self.gather(pixels))


STEMS: dict[str, Callable[[int], nn.Module]] = {
    "efficientnet-lite0": LiteStem,
    "efficientnet-lite0-halved": partial(LiteStem, halved=True),
}


def build_stem(name: str, width: int) -> nn.Module:
    """Build the stem called `name` with `width` output channels. Raises ConfigError for an unknown name."""
    if name not in STEMS:
        raise ConfigError(f"unknown stem {name!r}; known: {', '.join(sorted(STEMS))}")
    return STEMS[name](width)
