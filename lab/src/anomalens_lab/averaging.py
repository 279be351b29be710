"""Average the weights of backbones that were trained on from one another."""

import os
from collections.abc import Sequence

import torch

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.weights import load_weights
from anomalens.errors import ConfigError
from anomalens_lab.recipe import VERSION


def mean_of_weights(out: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]]) -> None:
    """Write the mean of the weights in `files` as one backbone, in float16.

    Files should come from stages of one training: the mean of two runs from nothing sees nothing. Raises ConfigError
    where they differ in size.
    """
    first, *others = (load_weights(str(file)) for file in files)
    if any(other.config != first.config for other in others):
        raise ConfigError("these backbones differ in size, so they have no mean")
    clip = first.clip()
    states = [clip.state_dict(), *(other.clip().state_dict() for other in others)]
    clip.load_state_dict({name: torch.stack([s[name] for s in states]).mean(0) for name in states[0]})
    save_bundle(out, clip, licence="Apache-2.0", version=VERSION, pixels=first.pixels, dtype=torch.float16)
