"""Keep a part of the auxiliary data from training, to see what was learned without touching any target.

Shapes: B images, S pixels a side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.datasets.layouts import Sample
from anomalens.errors import ConfigError
from anomalens.learning.features import Source, TrainingBatch
from anomalens.methods.parts.learned import LearnedMethod
from anomalens.metrics.summary import PixelAccumulator, summarise


class Subset:
    """Give some images of a source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """See `Source`."""
        return self.source.batch([self.indices[i] for i in indices])


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the images to learn from and to measure on, ascending.

    Of every class and label about `share`, in [0, 1), is held out. Raises ConfigError where that leaves one label
    without an image on either side.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault((sample.class_name, int(sample.label or 0)), []).append(number)
    generator = torch.Generator().manual_seed(seed)
    held_out: list[int] = []
    for members in groups.values():
        order = torch.randperm(len(members), generator=generator).tolist()
        held_out += [members[i] for i in order[: round(share * len(members))]]
    learn = sorted(set(range(len(samples))) - set(held_out))
    parts = (learn, held_out) if share else (learn,)
    if any({samples[i].label for i in part} != {0, 1} for part in parts):
        raise ConfigError(
            f"hold_out {share} of {len(samples)} images leaves no normal or no anomalous one on a side; "
            "take another share or more images"
        )
    return learn, sorted(held_out)


@torch.no_grad()
def measure(method: LearnedMethod, encoder: PromptEncoder, source: Source) -> dict[str, float | None]:
    """Compute image and pixel metrics in per cent (`metrics.summary`) over all images together, at S x S pixels.

    `method` must be in eval mode.
    """
    scores: list[float] = []
    labels: list[int] = []
    pixels = PixelAccumulator("histogram")
    texts: dict[str, Any] = {}
    for number in range(len(source)):
        image = source.batch([number])
        name = image.names[0] if method.uses_names else "object"
        if name not in texts:
            texts[name] = method.text(encoder, name)
        mask = image.masks[0].cpu().numpy() > 0.5
        result = method.score(image.features, texts[name], mask.shape)
        scores.append(float(result.score[0]))
        labels.append(int(image.labels[0]))
        pixels.update(result.map[0].float().cpu().numpy(), mask)
    return summarise(np.array(scores), np.array(labels), pixels)
