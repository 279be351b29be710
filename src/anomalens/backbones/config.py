"""Describe the sizes of a dual encoder, which must be known before weights can be loaded."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from anomalens.errors import ConfigError
from anomalens.typed_values import build

# Least and largest value of each size. Sizes come from files, and beyond these nothing but time and memory is lost.
_BOUNDS = {
    "image_size": (1, 2**14),
    "patch": (1, 2**10),
    "width": (1, 2**14),
    "layers": (1, 512),
    "heads": (1, 2**10),
    "mlp_ratio": (2**-6, 64),
    "context": (1, 2**16),
    "vocab": (1, 2**22),
    "joint": (1, 2**14),
}

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class VisionConfig:
    """Describe the image tower (Dosovitskiy et al. 2021, as used by Radford et al. 2021)."""

    # Native side in pixels: image_size / patch is the grid of the position table.
    image_size: int
    # Pixels a side of one patch token.
    patch: int
    # D, channels of the residual stream.
    width: int
    # Transformer blocks.
    layers: int
    # Attention heads; width / heads is the head size.
    heads: int
    # Hidden width of the feed-forward layers over `width`.
    mlp_ratio: float = 4.0
    # A convolutional stem by name (`stem.py`); None: one strided convolution.
    stem: str | None = None

    @property
    def grid(self) -> int:
        """Return the patches a side at the native size."""
        return self.image_size // self.patch


@dataclass(frozen=True)
class TextConfig:
    """Describe the text tower."""

    width: int
    layers: int
    heads: int
    # Token positions the position table has.
    context: int = 77
    # Byte-pair tokens.
    vocab: int = 49408


@dataclass(frozen=True)
class ClipConfig:
    """Describe both towers and the space they share (E = `joint`). Raises ConfigError where sizes do not fit."""

    vision: VisionConfig
    text: TextConfig
    joint: int
    # Travels with the weights: OpenAI trained with quick_gelu.
    activation: Activation = "quick_gelu"

    def __post_init__(self) -> None:
        for tower, sizes in (("vision", self.vision), ("text", self.text), ("joint", self)):
            for name, (least, most) in _BOUNDS.items():
                value = getattr(sizes, name, least)
                if not least <= value <= most:
                    raise ConfigError(f"{tower}: {name} must lie in [{least}, {most}], not {value}")
        for tower, width, heads in (
            ("vision", self.vision.width, self.vision.heads),
            ("text", self.text.width, self.text.heads),
        ):
            if width % heads:
                raise ConfigError(f"{tower} width {width} is not a multiple of its {heads} heads")
        if self.vision.image_size % self.vision.patch:
            raise ConfigError(
                f"image size {self.vision.image_size} is not a multiple of the patch side {self.vision.patch}"
            )
        if self.activation not in ("quick_gelu", "gelu"):
            raise ConfigError(f"activation must be 'quick_gelu' or 'gelu', not {self.activation!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary; `from_dict` is its inverse."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> "ClipConfig":
        """Return the config that `to_dict` wrote. Raises ConfigError on unknown, missing or unfit fields."""
        return build(cls, value, "config")
