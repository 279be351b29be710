"""Run backbone, method and text side in PyTorch: the engine that all others are compared with.

load_weights -> Clip      read_checkpoint -> Method      Method.text -> the text side, once
"""

import copy
import hashlib
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import LoadedWeights, load_weights
from anomalens.decision.calibration import Calibration, CalibrationTable, bundled_calibration
from anomalens.decision.pooling import ScorePooling
from anomalens.engines.contract import Floats, Identity, Scored
from anomalens.engines.loaded import (
    MOST_PARALLEL,
    Loaded,
    changed_settings,
    loaded_as_shipped,
    shipped_for,
    whole_patches,
    words_of,
)
from anomalens.engines.smaller_batches import Room
from anomalens.errors import ConfigError
from anomalens.files import cache_folder
from anomalens.images.preprocessing import Preprocess
from anomalens.methods import base
from anomalens.methods.base import Method
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    config_of,
    is_published_backbone,
    load_method,
    missing_checkpoint,
    read_checkpoint,
    shipped_checkpoint,
)
from anomalens.methods.published.fetching import checkpoint_file
from anomalens.methods.published.table import choose_published, find_published, is_published_name
from anomalens.methods.references.reference_method import QUARTERS, taps_at
from anomalens.options import BUNDLED, LoadOptions

# Width of a tower up to which its matrix products are too small to be worth dividing among threads.
_NARROW = 512
# Methods that adapt from image to image score one batch at a time, whichever thread asks.
_one_at_a_time = threading.Lock()


class TorchEngine:
    """Hold a dual encoder, a method and its text side, which is computed once. Threads may share it.

    `identity` says the names; what can be read off the network (options, precision, what was learned) is filled in.
    """

    def __init__(self, clip: Clip, method: Method, encoder: PromptEncoder, identity: Identity) -> None:
        self.clip, self.method, self.encoder = clip, method, encoder
        self.identity = replace(
            identity,
            learned=hash_of(dict(method.named_parameters())),
            options=config_of(method),
            ignores_object=not method.names_object,
            precision=str(clip.visual.dtype).removeprefix("torch."),
        )
        self.text = self._read_text()
        self._hands_out_levels = False
        self._room = Room()

    @property
    def runtime(self) -> str:
        """Return "torch"."""
        return "torch"

    @property
    def device(self) -> torch.device:
        """Return where the tower computes."""
        return self.clip.visual.proj.device

    @property
    def parallel(self) -> int:
        """Say how many batches are worth scoring at once: several for a small tower on a CPU, else one.

        Threads that would share a small tower's batch get a batch each, which is more done in all.
        """
        return 1 if self.method.ordered else batches_at_once(self.device, self.clip.visual.width)

    def for_object(self, name: str) -> "TorchEngine":
        """Return the same network, weights shared, with prompts about `name`; itself where it has these already."""
        if name == self.identity.object_name:
            return self
        other = copy.copy(self)
        other.identity = replace(self.identity, object_name=name)
        other.text = other._read_text()
        return other

    def with_levels(self, depths: Sequence[float] = QUARTERS) -> "TorchEngine":
        """Return the same network, weights shared, whose answers hold what photographs are compared by."""
        other = copy.copy(self)
        # A copy that shares every parameter: only the taps are its own.
        other.method = copy.copy(self.method)
        other.method.hand_out_levels(taps_at(self.clip.config.vision.layers, depths))
        other._hands_out_levels = True
        return other

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        """Score normalised pixels [B, 3, H, W] -> scores [B] and maps [B, H, W]; see `Engine`."""
        with fewer_threads(sharing), torch.inference_mode():
            if not self.method.ordered:
                return self._room.score(self._score, pixels, keys)
            # What it carries from batch to batch would count images twice that are scored again.
            with _one_at_a_time:
                return self._score(pixels, keys)

    def _score(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """Score a batch, all of it at once."""
        batch = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            # From pinned memory the copy does not wait for what the GPU still has to do.
            batch = batch.pin_memory()
        features = self.method.encode(self.clip, batch.to(self.device, non_blocking=True), keys)
        answer = self.method.score(features, self.text, (pixels.shape[-2], pixels.shape[-1]))
        levels: tuple[Any, ...] = self.method.levels(features) if self._hands_out_levels else ()
        if self.device.type == "cpu":
            levels = tuple(level.numpy() for level in levels)
        return Scored(answer.score.float().cpu().numpy(), answer.map.float().cpu().numpy(), levels=levels)

    def _read_text(self) -> Any:
        with torch.inference_mode():
            return self.method.text(self.encoder, self.identity.object_name)


def load(options: LoadOptions) -> Loaded:
    """Build the engine that `options` ask for; arguments and errors as `load_detector`."""
    device = pick_device(options.device)
    weights = load_weights(options.backbone, offline=options.offline)
    table = _shipped_table(weights)
    name = resolve_method(options, table)
    checkpoint = _learned(name, options, weights)
    if checkpoint is not None and checkpoint.activation is not None:
        weights = weights.with_activation(checkpoint.activation)
    shipped = shipped_for(options, table, name)
    method_options = dict(shipped.options if shipped else {}) | dict(options.method_options)
    if "seed" in base.entry(name).options:
        method_options["seed"] = options.seed
    if checkpoint is None:
        method = base.create(name, weights.config, offline=options.offline, **method_options)
    else:
        method = load_method(
            checkpoint,
            weights,
            name,
            strict_backbone=options.strict_backbone,
            offline=options.offline,
            **method_options,
        )
    clip = weights.clip().to(device, getattr(torch, options.dtype))
    method = method.to(device).eval()
    preferred = resolve_size(None, checkpoint, method, weights)
    preprocess = Preprocess(
        size=resolve_size(options.size, checkpoint, method, weights),
        mean=weights.pixels.mean,
        std=weights.pixels.std,
        interpolation=method.interpolation,
        geometry=method.geometry,
        multiple=weights.config.vision.patch,
    )
    identity = Identity(
        name,
        weights.name,
        weights.hash,
        object_name=options.object_name,
        seed=options.seed,
        auxiliary_data=checkpoint.info.auxiliary_data if checkpoint else None,
        trained_images=checkpoint.images if checkpoint else frozenset(),
        published=checkpoint.info.training.get("published") if checkpoint else None,
    )
    encoder = PromptEncoder(clip, weights.hash, Path(options.cache) if options.cache else cache_folder())
    engine = TorchEngine(clip, method, encoder, identity)
    if shipped is None:
        neutral = Calibration.neutral(method.heat_range)
        return Loaded(engine, preprocess, neutral, ScorePooling(), None, options.extra_sizes or ())
    usual = asdict(base.entry(name).config()) | dict(shipped.options) | {"size": preferred}
    changed = changed_settings(options, preprocess.size, usual)
    if shipped.pooling.ignores_method_score:
        base.warn_score_only(method, changed)
    return loaded_as_shipped(engine, preprocess, options, shipped, changed)


def resolve_method(options: LoadOptions, table: CalibrationTable | None) -> str:
    """Return the name of the zero-shot method: what was asked for; for "auto" the checkpoint's, else the best one."""
    name = words_of(options.method)
    if name != "auto":
        return name
    if options.checkpoint is None:
        return table.best if table else "anoclip"
    if is_published_name(options.checkpoint):
        return find_published(options.checkpoint).method
    return read_checkpoint(options.checkpoint).info.method


def words_entry(options: LoadOptions) -> base.Entry:
    """Return the entry of the zero-shot method that `options` ask for; no weights are loaded.

    Raises ConfigError for an unknown method.
    """
    return base.entry(resolve_method(options, bundled_calibration() if options.backbone == BUNDLED else None))


def resolve_size(asked: int | None, checkpoint: Checkpoint | None, method: Method, weights: LoadedWeights) -> int:
    """Return the side in pixels of what the tower sees, a multiple of its patch.

    It is what was asked for, else the size that prompts were learned at, else what the method prefers.
    """
    learned_at = checkpoint.info.training.get("size") if checkpoint else None
    side: int = asked or learned_at or method.working_size(weights.image_size)
    patch = weights.config.vision.patch
    return whole_patches(side, patch, warn=asked is not None)


def batches_at_once(device: torch.device, width: int) -> int:
    """Return how many batches are worth computing at once by a tower of `width` channels, each in a thread."""
    small = device.type == "cpu" and width <= _NARROW
    return min(torch.get_num_threads(), MOST_PARALLEL) if small else 1


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" takes a GPU where one is available.

    Raises ConfigError for a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'auto'") from error
    return device


def _shipped_table(weights: LoadedWeights) -> CalibrationTable | None:
    """Return what is shipped for the bundled weights; None for others."""
    table = bundled_calibration() if weights.is_bundled else None
    # If other weights were put in the package, its numbers mean nothing.
    return table if table and table.weights == weights.hash else None


def _learned(method: str, options: LoadOptions, weights: LoadedWeights) -> Checkpoint | None:
    """Return what `method` has learned; None if it learns nothing.

    It is the checkpoint asked for; else the shipped one for the bundled weights, and for those that papers used the
    first that the authors published.
    """
    spec = options.checkpoint
    if not base.entry(method).learned:
        if spec is not None:
            raise ConfigError(f"method {method!r} learns nothing, so it takes no checkpoint")
        return None
    if spec is None and weights.is_bundled:
        return read_checkpoint(shipped_checkpoint(method))
    if spec is None:
        published = choose_published(method)
        if published is None or not is_published_backbone(weights):
            raise missing_checkpoint(method, weights.name, published.name if published else "")
        spec = published.name
    return read_checkpoint(checkpoint_file(spec, offline=options.offline) if is_published_name(spec) else spec)


def fewer_threads(sharing: int) -> Any:
    """Divide the cores by `sharing` for this thread alone, as a context."""
    if sharing == 1:
        return nullcontext()
    # PyTorch sets up a thread's OpenMP at its first use, which would undo a limit set before.
    threads = torch.get_num_threads()
    return _controller().limit(limits=max(1, threads // sharing), user_api="openmp")


@cache
def _controller() -> ThreadpoolController:
    """Find the OpenMP libraries of this process, once: they are loaded when torch is."""
    return ThreadpoolController()


def hash_of(values: dict[str, Tensor]) -> str | None:
    """Return a short hash of named tensors' contents; None of none."""
    if not values:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
