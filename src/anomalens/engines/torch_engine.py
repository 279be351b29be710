"""The engine everything else is measured by: backbone, method and text side in PyTorch.

load_weights -> Clip      read_checkpoint -> Method      Method.text -> the text side, once
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, is_dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones.prompt_encoder import PromptEncoder
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.decision.calibration import BUNDLED, Calibration, bundled_calibration
from anomalens.engines.contract import Batch, Dtype, Floats, Identity, Scored
from anomalens.errors import ConfigError
from anomalens.files import cache_folder
from anomalens.images.preprocessing import Preprocess
from anomalens.methods import base
from anomalens.methods.base import Method
from anomalens.methods.parts.checkpoints import (
    Checkpoint,
    load_method,
    missing_checkpoint,
    read_checkpoint,
    shipped_checkpoint,
)
from anomalens.threads import map_ordered

_NARROW = 512  # width of a tower up to which its products are too small to be worth cutting up among threads
_STREAMS = 16  # batches at once at most: each holds its activations


class TorchEngine:
    """A dual encoder, a method and its text side, which is computed once.

    `identity` says the names; what can be read off the network (options, precision, what was learned) is filled in.
    """

    def __init__(self, clip: Clip, method: Method, encoder: PromptEncoder, identity: Identity) -> None:
        self.clip, self.method, self.encoder = clip, method, encoder
        self.identity = replace(
            identity,
            learned=_hash(dict(method.named_parameters())),
            options=_options(method),
            precision=str(clip.visual.dtype).removeprefix("torch."),
        )
        self.text = self._read_text()

    @property
    def device(self) -> torch.device:
        """Where the tower computes."""
        return self.clip.visual.proj.device

    def for_object(self, name: str) -> "TorchEngine":
        """The same network, weights shared, with prompts about `name`; itself where it has these already."""
        if name == self.identity.object_name:
            return self
        other = copy.copy(self)
        other.identity = replace(self.identity, object_name=name)
        other.text = other._read_text()
        return other

    def score_batch(self, pixels: Floats, keys: Sequence[int]) -> Scored:
        """Normalised pixels [B, 3, H, W] -> scores [B] and maps [B, H, W]."""
        with torch.inference_mode():
            here = torch.from_numpy(pixels)
            if self.device.type == "cuda":  # from pinned memory the copy does not wait for what the GPU has to do yet
                here = here.pin_memory()
            there = here.to(self.device, non_blocking=True)
            features = self.method.encode(self.clip, there, keys)
            found = self.method.score(features, self.text, (pixels.shape[-2], pixels.shape[-1]))
            return Scored(found.score.float().cpu().numpy(), found.map.float().cpu().numpy())

    def score_batches(self, batches: Iterable[Batch]) -> Iterator[Scored]:
        """Many batches, results in order: one after the other, or, for a small tower on a CPU, several at once.

        The threads that a single batch would be shared among then have a batch each, which is more done in all.
        """
        source, threads = iter(batches), torch.get_num_threads()
        beside = self.device.type == "cpu" and self.clip.visual.width <= _NARROW and not self.method.ordered
        streams = min(threads, _STREAMS) if beside else 1
        first = list(islice(source, 2)) if streams > 1 else []
        if len(first) < 2:  # nothing to compute beside it
            yield from (self.score_batch(*batch) for batch in chain(first, source))
            return

        def score(batch: Batch) -> Scored:
            torch.set_num_threads(threads // streams)  # of the thread that this runs in
            return self.score_batch(*batch)

        try:
            with closing(map_ordered(chain(first, source), score, workers=streams, ahead=streams + 1)) as results:
                for _, found in results:
                    if isinstance(found, Exception):
                        raise found
                    yield found
        finally:
            torch.set_num_threads(threads)  # new threads would take over the last setting anywhere

    def _read_text(self) -> Any:
        with torch.inference_mode():
            return self.method.text(self.encoder, self.identity.object_name)


@dataclass(frozen=True)
class Loaded:
    """An engine, and what its backbone and method ask of the pipeline around it."""

    engine: TorchEngine
    preprocess: Preprocess
    calibration: Calibration
    unlike: tuple[str, ...] | None  # what differs from the settings of the calibration; None: it is merely neutral


def load(
    method: str,
    backbone: str,
    *,
    object_name: str,
    checkpoint: str | Path | None = None,
    any_backbone: bool = False,
    size: int | None = None,
    device: str = "auto",
    dtype: Dtype = "float32",
    seed: int = 0,
    offline: bool = False,
    cache: str | Path | None = None,
    **options: Any,
) -> Loaded:
    """Build the engine of `method` on `backbone`; arguments and errors as `detector.load_detector`."""
    if dtype not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype must be 'float32' or 'bfloat16', not {dtype!r}")
    where = pick_device(device)
    loaded = load_weights(backbone, offline=offline)
    table = bundled_calibration() if loaded.name == BUNDLED else None
    if table and table.weights != loaded.hash:  # other weights were put in the package: the numbers mean nothing
        table = None
    if method == "auto":
        best = table.best if table else "anoclip"
        method = read_checkpoint(checkpoint).info.method if checkpoint is not None else best
    held = _learned(method, checkpoint, loaded.name)
    # Calibrated numbers are those of the shipped prompts.
    known = table.methods.get(method) if table and checkpoint is None else None
    given, options = options, (known.options if known else {}) | options
    if base.entry(method).accepts("seed"):
        options["seed"] = seed
    if held is None:
        built = base.create(method, loaded.config, offline=offline, **options)
    else:
        built = load_method(held, loaded, method, any_backbone=any_backbone, offline=offline, **options)
    clip = loaded.clip().to(where, getattr(torch, dtype))
    built = built.to(where).eval()
    learned_at = held.info.training.get("size") if held else None
    side = size or learned_at or built.working_size(loaded.image_size)
    sizes = Preprocess(
        size=side - side % loaded.config.vision.patch,
        mean=loaded.pixels.mean,
        std=loaded.pixels.std,
        interpolation=built.interpolation,
        geometry=built.geometry,
        multiple=loaded.config.vision.patch,
    )
    unlike = None
    if known:
        native = learned_at or built.working_size(loaded.image_size)
        now = given | {"size": sizes.size}
        usual = asdict(base.entry(method).config()) | known.options | {"size": native}
        unlike = tuple(f"{name}={value}" for name, value in now.items() if value != usual.get(name))
    identity = Identity(
        method,
        loaded.name,
        loaded.hash,
        object_name=object_name,
        seed=seed,
        auxiliary_data=held.info.auxiliary_data if held else None,
        trained_images=held.images if held else frozenset(),
    )
    encoder = PromptEncoder(clip, loaded.hash, Path(cache) if cache else cache_folder())
    return Loaded(TorchEngine(clip, built, encoder, identity), sizes, known or Calibration.neutral(built), unlike)


def pick_device(name: str) -> torch.device:
    """ "auto" takes a GPU where there is one. Raises ConfigError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here ({str(error).splitlines()[0]}); try 'auto'") from error
    return device


def _learned(method: str, checkpoint: str | Path | None, backbone: str) -> Checkpoint | None:
    """What `method` has learned: what is given, else what is shipped; None for a method that learns nothing."""
    if not base.entry(method).learned:
        if checkpoint is not None:
            raise ConfigError(f"method {method!r} learns nothing, so it takes no checkpoint")
        return None
    if checkpoint is None and backbone != BUNDLED:
        raise missing_checkpoint(method, backbone)
    return read_checkpoint(shipped_checkpoint(method) if checkpoint is None else checkpoint)


def _options(method: Method) -> dict[str, Any]:
    config = getattr(method, "config", None)
    if not is_dataclass(config) or isinstance(config, type):
        return {}
    return dict(json.loads(json.dumps(asdict(config))))


def _hash(values: dict[str, Tensor]) -> str | None:
    """Short content hash of named tensors; None of none."""
    if not values:
        return None
    digest = hashlib.sha256()
    for name, value in sorted(values.items()):
        digest.update(f"{name} {tuple(value.shape)} ".encode())
        digest.update(value.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
