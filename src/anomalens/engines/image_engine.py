"""Run a backbone that knows images only, in PyTorch: DINOv2 or DINOv3, for all that compares with photographs.

It knows no words, so that it finds nothing before it is taught.
"""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anomalens.backbones.dino import IMAGENET_MEAN, IMAGENET_STD, Dino, is_dino, load_dino
from anomalens.decision.calibration import Calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.engines.contract import NO_WORDS, Floats, Identity, Scored
from anomalens.engines.loaded import Loaded, whole_patches, words_of
from anomalens.engines.smaller_batches import Room
from anomalens.engines.torch_engine import batches_at_once, fewer_threads, hash_of, pick_device
from anomalens.errors import ConfigError
from anomalens.images.preprocessing import Preprocess
from anomalens.methods.references.reference_method import QUARTERS, taps_at
from anomalens.options import LoadOptions

# Shorter side in pixels at which images are seen unless another is asked for (AnomalyDINO's fast setting).
_SIZE = 448


class ImageEngine:
    """Hold a tower for images. Threads may share it."""

    def __init__(self, network: Dino, identity: Identity, taps: tuple[int, ...] = ()) -> None:
        """Hold a network.

        Args:
            network: frozen, on its device.
            identity: names it; hash and precision are filled in.
            taps: blocks, counted from 1, whose patch features answers hold; none where levels are not handed out.
        """
        self.network, self.taps, self._room = network, taps, Room()
        precision = str(network.dtype).removeprefix("torch.")
        weights = hash_of(dict(network.named_parameters())) or ""
        self.identity = replace(identity, method=NO_WORDS, weights=weights, precision=precision)

    @property
    def runtime(self) -> str:
        """Return "torch"."""
        return "torch"

    @property
    def device(self) -> torch.device:
        """Return where the tower computes."""
        return self.network.device

    @property
    def parallel(self) -> int:
        """Say how many batches are worth scoring at once."""
        return batches_at_once(self.device, self.network.width)

    def for_object(self, name: str) -> "ImageEngine":
        """Return the same network under another name of the object, which changes nothing else."""
        other = copy.copy(self)
        other.identity = replace(self.identity, object_name=name)
        return other

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "ImageEngine":
        """Return the same network, weights shared, whose answers hold the features at `depths` of it."""
        other = copy.copy(self)
        other.taps = taps_at(self.network.layers, depths)
        return other

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Hand out levels of normalised pixels [B, 3, H, W], with scores [B] and maps [B, 1, 1] of 0; see `Engine`.

        Raises ConfigError where no levels were asked for: it would call everything normal.
        """
        if not self.taps:
            raise ConfigError(
                f"{self.identity.backbone} knows images, but no words: it finds nothing before it is taught; "
                "call fit(good_photos), or use `anomalens fit`"
            )
        with fewer_threads(sharing), torch.inference_mode():
            return self._room.score(self._score, pixels, keys)

    def _score(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """Hand out levels of a batch, all of it at once."""
        batch = torch.from_numpy(pixels).to(self.device, self.network.dtype)
        levels: tuple[Any, ...] = tuple(level.float() for level in self.network.levels(batch, self.taps))
        if self.device.type == "cpu":
            levels = tuple(level.numpy() for level in levels)
        count = len(pixels)
        return Scored(np.zeros(count, np.float32), np.zeros((count, 1, 1), np.float32), levels=levels)


def can_load(backbone: str) -> bool:
    """Tell whether weights know images only, by the name of a repository or what lies at a path."""
    return is_dino(backbone)


def load(options: LoadOptions) -> Loaded:
    """Build the engine of weights for which `can_load` holds; arguments and errors as `load_detector`.

    Raises ConfigError for a method that needs words.
    """
    name = options.method
    if words_of(name) != "auto":
        raise ConfigError(
            f"{name} compares images with words, which {options.backbone} does not know; give CLIP weights, or a method"
            " that compares with photographs alone (anomalydino, patchcore, subspacead, memory)"
        )
    if options.checkpoint is not None or options.method_options:
        idle = ", ".join(["checkpoint"] * (options.checkpoint is not None) + sorted(options.method_options))
        raise ConfigError(f"{options.backbone} knows no words, so it takes no {idle}; options of {name} belong to fit")
    device = pick_device(options.device)
    network = load_dino(options.backbone, offline=options.offline).to(device, getattr(torch, options.dtype))
    preprocess = Preprocess(
        size=whole_patches(options.size or _SIZE, network.patch, warn=options.size is not None),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        geometry="shorter-side",
        multiple=network.patch,
    )
    identity = Identity(NO_WORDS, options.backbone, object_name=options.object_name, seed=options.seed)
    return Loaded(ImageEngine(network, identity), preprocess, Calibration.neutral((0.0, 1.0)), ScorePooling(), None)
