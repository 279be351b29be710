"""How pixels become patch embeddings: CLIP's one strided convolution, or a convolutional stem by name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from anomalens.errors import ConfigError


class PatchConvolution(nn.Module):
    """CLIP's patch embedding: one convolution, kernel = stride = patch, no bias."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, 3, patch, patch) * (3 * patch * patch) ** -0.5)
        self.patch = patch

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, D, h, w]."""
        return torch.conv2d(pixels, self.weight, stride=self.patch)


STEMS: dict[str, Callable[[int], nn.Module]] = {}


def build_stem(name: str, width: int) -> nn.Module:
    """The stem called `name`, giving `width` channels. Raises ConfigError for an unknown name."""
    if name not in STEMS:
        raise ConfigError(f"unknown stem {name!r}; known: {', '.join(sorted(STEMS)) or 'none'}")
    return STEMS[name](width)
