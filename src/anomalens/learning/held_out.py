"""A part of the auxiliary data kept from training, to see what was learned without touching any target.

Shapes: B images, S pixels a side.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.datasets.layouts import Sample
from anomalens.errors import ConfigError
from anomalens.learning.features import Batch, Source
from anomalens.methods.parts.learned import LearnedMethod
from anomalens.metrics.summary import PixelAccumulator, summarise


class Part:
    """Some images of a source."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Sequence[int]) -> Batch:
        """See `Source`."""
        return self.source.batch([self.indices[i] for i in indices])


def split(samples: Sequence[Sample], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Numbers of the images to learn from and to measure on; of every class and label about `share` is held out.

    Raises ConfigError where the share lies outside [0, 1), or leaves one label without an image on either side.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"hold_out {share} must lie in [0, 1): it is a share of the data")
    groups: dict[tuple[str, int], list[int]] = {}
    for number, sample in enumerate(samples):
        groups.setdefault((sample.class_name, int(sample.label or 0)), []).append(number)
    generator = torch.Generator().manual_seed(seed)
    held: list[int] = []
    for members in groups.values():
        order = torch.randperm(len(members), generator=generator).tolist()
        held += [members[i] for i in order[: round(share * len(members))]]
    learn = sorted(set(range(len(samples))) - set(held))
    parts = (learn, held) if share else (learn,)
    if any({samples[i].label for i in part} != {0, 1} for part in parts):
        raise ConfigError(
            f"hold_out {share} of {len(samples)} images leaves no normal or no anomalous one on a side; "
            "take another share or more images"
        )
    return learn, sorted(held)


@torch.no_grad()
def measure(method: LearnedMethod, encoder: PromptEncoder, source: Source) -> dict[str, float | None]:
    """Image and pixel metrics in per cent (`evaluation.metrics`) over all images together, maps at S x S pixels.

    `method` must be in eval mode.
    """
    scores: list[float] = []
    labels: list[int] = []
    pixels = PixelAccumulator("histogram")
    texts: dict[str, Any] = {}
    for number in range(len(source)):
        one = source.batch([number])
        name = one.names[0] if method.uses_names else "object"
        if name not in texts:
            texts[name] = method.text(encoder, name)
        mask = one.masks[0].cpu().numpy() > 0.5
        found = method.score(one.features, texts[name], mask.shape)
        scores.append(float(found.score[0]))
        labels.append(int(one.labels[0]))
        pixels.update(found.map[0].float().cpu().numpy(), mask)
    return summarise(np.array(scores), np.array(labels), pixels)
