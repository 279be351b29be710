"""Compute frozen features once: the tower runs over the auxiliary data one time, however many epochs follow.

There is no augmentation and the image side of these methods learns nothing, so its output never changes. It is kept in
half precision in memory-mapped files, keyed by weights, preprocessing, what the method reads, and the images; a build
that was stopped goes on where it stopped. Where the image side does learn (AdaCLIP), `Pixels` gives the same batches by
running the tower each time.

Files of a cache folder: `cls.npy` [M, E], `dense-R-T.npy` [M, N, E or D] for tap T of request R, `masks.npy`
[M, ⌈S²/8⌉] of bits, `progress.json` (shapes, and how many images are done).

Shapes: M images of the data, B of a batch, N = h*w patches, S pixels a side.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from anomalens.backbones.tower import Clip, Features
from anomalens.datasets.layouts import Sample, read_truth
from anomalens.errors import InputError
from anomalens.files import digest, require_room, stamp, write_json
from anomalens.images.content import content_key
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.methods.base import Method

Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""


@dataclass
class TrainingBatch:
    """Hold what a loss takes."""

    features: Features
    # [B, S, S] float, 1 = abnormal.
    masks: Tensor
    # [B] 1 = abnormal.
    labels: Tensor
    # Class of each image.
    names: tuple[str, ...]


class Source(Protocol):
    """Give auxiliary data that a method can be trained on."""

    def __len__(self) -> int:
        """Return M."""

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """Return the images of these numbers, on the tower's device."""


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """Select what pixel losses can learn from: labelled samples, anomalous ones with a mask.

    An anomalous image without a mask would teach that its defect is normal. Raises InputError where none or only one
    kind is left.
    """
    kept = [s for s in samples if s.label == 0 or (s.label == 1 and s.mask is not None)]
    anomalous = sum(s.label == 1 for s in kept)
    if not 0 < anomalous < len(kept):
        raise InputError(
            f"{len(samples)} images hold {len(kept) - anomalous} normal and {anomalous} anomalous ones with a mask; "
            "training needs both"
        )
    return kept


def _encode(method: Method, clip: Clip, samples: Sequence[Sample], recipe: Preprocess) -> tuple[Features, np.ndarray]:
    """Return features and masks [B, S, S] bool of samples. Raises InputError where a file cannot be read."""
    pixels, masks, keys = [], [], []
    for sample in samples:
        rgb = decode(sample.image).rgb
        mask = read_truth(sample, (recipe.size, recipe.size))
        if mask is None:
            raise InputError(f"{sample.image}: anomalous without a mask; leave it out, or add its mask")
        pixels.append(preprocess(rgb, recipe))
        masks.append(mask)
        keys.append(content_key(rgb))
    batch = torch.from_numpy(np.stack(pixels)).to(clip.visual.proj.device)
    return method.encode(clip, batch, keys), np.stack(masks)


class Pixels:
    """Give batches straight from image files: the tower runs every time, with gradient into the method's prompts."""

    def __init__(self, method: Method, clip: Clip, samples: Sequence[Sample], recipe: Preprocess) -> None:
        self.method, self.clip, self.samples, self.recipe = method, clip, samples, recipe

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """See `Source`."""
        chosen = [self.samples[i] for i in indices]
        features, masks = _encode(self.method, self.clip, chosen, self.recipe)
        return _batch(features, masks, chosen, self.clip.visual.proj.device)


class Cached:
    """Give batches from a cache folder that `build` has filled."""

    def __init__(self, folder: Path, samples: Sequence[Sample], device: torch.device) -> None:
        self.samples, self.device = samples, device
        about = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        self.grid: tuple[int, int] = (about["grid"][0], about["grid"][1])
        self.side = int(about["side"])

        def load(name: str) -> np.ndarray:
            array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r")
            return array

        self._cls, self._masks = load("cls"), load("masks")
        self._dense = [[load(f"dense-{r}-{t}") for t in range(taps)] for r, taps in enumerate(about["taps"])]

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """See `Source`."""
        rows = list(indices)

        def read(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[rows]).to(self.device).float()

        dense = tuple(tuple(read(tap) for tap in request) for request in self._dense)
        bits = np.unpackbits(self._masks[rows], axis=1, count=self.side**2)
        masks = bits.reshape(len(rows), self.side, self.side)
        features = Features(read(self._cls), dense, self.grid)
        return _batch(features, masks, [self.samples[i] for i in rows], self.device)


def _batch(features: Features, masks: np.ndarray, samples: Sequence[Sample], device: torch.device) -> TrainingBatch:
    labels = torch.tensor([int(s.label or 0) for s in samples], device=device)
    truth = torch.from_numpy(masks).float().to(device)
    return TrainingBatch(features, truth, labels, tuple(s.class_name for s in samples))


def cache_key(method: Method, weights_hash: str, samples: Sequence[Sample], recipe: Preprocess, extra: str = "") -> str:
    """Name a cache: equal only where every feature would be. `extra` holds further settings of the image side."""
    files = [(s.id, str(s.mask and s.mask.name), stamp(s.image), stamp(s.mask)) for s in samples]
    streams = [asdict(request) for request in method.dense]
    facts = [weights_hash, asdict(recipe), streams, method.cls, method.positions, extra, files]
    return digest(json.dumps(facts, sort_keys=True))[:32]


def build(
    folder: Path,
    method: Method,
    clip: Clip,
    samples: Sequence[Sample],
    recipe: Preprocess,
    *,
    batch: int = 8,
    progress: Progress | None = None,
    announce: Callable[[int], None] | None = None,
) -> Cached:
    """Fill a cache folder, or what is missing of it, and open it.

    Args:
        folder: its own folder, named by `cache_key`.
        recipe: how images are prepared.
        batch: images in one pass of the tower.
        progress: called after every batch.
        announce: called with the size in bytes before anything is written.

    Raises:
        InputError: an image or mask cannot be read, or the disk has no room for the cache.
    """
    about_file = folder / "progress.json"
    done = json.loads(about_file.read_text(encoding="utf-8"))["done"] if about_file.is_file() else 0
    files: dict[str, np.memmap] = {}
    for start in range(done, len(samples), batch):
        chosen = samples[start : start + batch]
        with torch.no_grad():
            features, masks = _encode(method, clip, chosen, recipe)
        values = {name: tensor.half().cpu().numpy() for name, tensor in _named(features).items()}
        values["masks"] = np.packbits(masks.reshape(len(chosen), -1), axis=1)
        if not files:
            size = len(samples) * sum(array[0].nbytes for array in values.values())
            if announce:
                announce(size)
            files = _open(folder, values, len(samples), size if start == 0 else None)
        for name, array in values.items():
            files[name][start : start + len(chosen)] = array
            files[name].flush()
        # Written last: what it counts is on disk.
        about = {"grid": list(features.grid), "side": recipe.size, "taps": [len(request) for request in features.dense]}
        write_json(about_file, about | {"done": start + len(chosen)})
        if progress:
            progress(start + len(chosen), len(samples))
    return Cached(folder, samples, clip.visual.proj.device)


def _named(features: Features) -> dict[str, Tensor]:
    """Return the tensors of features by the names of their files."""
    assert features.cls is not None
    dense = {f"dense-{r}-{t}": tap for r, request in enumerate(features.dense) for t, tap in enumerate(request)}
    return {"cls": features.cls, **dense}


def _open(folder: Path, values: dict[str, np.ndarray], images: int, size: int | None) -> dict[str, np.memmap]:
    """Open the files for `images` rows like `values`; a new cache of `size` bytes, or (None) those that are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if size is not None:
        require_room(folder, size, "the features")
    mode: Any = "r+" if size is None else "w+"
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode, array.dtype, None if size is None else (images, *array.shape[1:])
        )
        for name, array in values.items()
    }
