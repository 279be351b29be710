"""State the recipe: sizes of the model, schedule, batches. With the scenes it decides the weights."""

import math
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.errors import ConfigError
from anomalens_lab.alignment import Weights
from anomalens_lab.shards import PATCH

VERSION = "1.1"
"""Version of the weights that this recipe makes."""


@dataclass(frozen=True)
class PretrainConfig:
    """Hold the numbers of one run. Raises ConfigError where they make no schedule."""

    # D of both towers and E, so that Crane can put image features among words.
    width: int = 192
    # Blocks of the image tower.
    layers: int = 4
    text_layers: int = 4
    # Pixels a side the backbone prefers: 28 x 28 tokens.
    native: int = 448
    steps: int = 1500
    # Most scenes a step, an even number: they stand in twins.
    batch: int = 32
    # Most pixels a step: larger sides come in smaller batches, at equal cost.
    pixels: int = 32 * 256 * 256
    # Pixels a side; one of them is drawn each step.
    sides: tuple[int, ...] = (224, 256, 320, 384, 448)
    # Last steps at `final_side`, the size the weights are used at.
    final_steps: int = 90
    final_side: int = 448
    final_batch: int = 10
    # AdamW's peak learning rate.
    rate: float = 1e-3
    # Steps in which the learning rate rises to its peak.
    warmup: int = 100
    # AdamW's weight decay, matrices only.
    decay: float = 0.05
    # Share of the old value in the running average of the weights, a step.
    average: float = 0.997
    # Pairs of state prompts a step.
    pairs: int = 6
    # Sentences the teacher reads once.
    sentences: int = 4096
    # Sentences of these that are compared each step.
    taught: int = 48
    # Windows of an image on every third step.
    windows: int = 10
    # Scenes that the channels of the stem are whitened and standardised on.
    measured: int = 192
    # Steps from one checkpoint to the next.
    checkpoint_every: int = 100
    seed: int = 0
    weights: Weights = field(default_factory=Weights)
    # Autocast; 1.5 times faster on CPUs with AVX512-BF16.
    bf16: bool = True

    def __post_init__(self) -> None:
        if self.seed < 0 or self.checkpoint_every < 1:
            raise ConfigError(f"seed {self.seed} must be 0 or more, checkpoint_every {self.checkpoint_every} 1 or more")
        if self.steps < 1 or self.final_steps >= self.steps or self.warmup >= self.steps:
            raise ConfigError(
                f"{self.steps} steps leave nothing between warm-up ({self.warmup}) and the last {self.final_steps}"
            )
        if any(side < PATCH or side % PATCH for side in (*self.sides, self.final_side)):
            raise ConfigError(f"sides {self.sides} and {self.final_side} must be multiples of {PATCH} pixels")
        if any(batch < 2 or batch % 2 for batch in (self.batch, self.final_batch)):
            raise ConfigError(f"batches of {self.batch} and {self.final_batch} must be even: scenes stand in twins")
        if self.taught > self.sentences:
            raise ConfigError(f"{self.taught} sentences a step are more than the {self.sentences} there are")

    def clip(self) -> ClipConfig:
        """Return the sizes of the model that is trained."""
        heads = self.width // 64
        return ClipConfig(
            VisionConfig(self.native, PATCH, self.width, self.layers, heads, stem="efficientnet-lite0"),
            TextConfig(self.width, self.text_layers, heads),
            joint=self.width,
            activation="gelu",
        )


def rate_at(config: PretrainConfig, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to 2 %."""
    if step < config.warmup:
        return config.rate * (step + 1) / config.warmup
    along = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.rate * (0.02 + 0.98 * (1 + math.cos(math.pi * along)) / 2)


def parameter_groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters for AdamW: matrices decay; vectors, tables and temperatures do not."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in named if p.ndim <= 1 or "embedding" in name]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
