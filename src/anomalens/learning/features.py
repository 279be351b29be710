"""Compute frozen features once: the tower runs over the auxiliary data one time, however many epochs follow.

There is no augmentation, so what comes before anything learned (`Method.encode_frozen`) never changes. That is the
whole image side, but for AdaCLIP, whose prompts stand in the tower: there it is the embedded patches and the image
embedding without prompts. It is kept in half precision in memory-mapped files, keyed by weights, preprocessing, what
the method reads, and the images; a build that was stopped goes on where it stopped.

Files of a cache folder: `cls.npy` [M, E], `dense-R-T.npy` [M, N, E or D] for tap T of request R, `masks.npy`
[M, ⌈S²/8⌉] of bits, `progress.json` (shapes, how many images are done, and a sum of each batch). One process at a time
fills a folder; a damaged one is filled anew.

Shapes: M images of the data, B of a batch, N = h*w patches, S pixels a side.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from anomalens import typed_values
from anomalens.backbones.tower import Clip, Features
from anomalens.datasets.layouts import Sample, read_truth
from anomalens.engines.smaller_batches import Room
from anomalens.errors import ConfigError, InputError
from anomalens.files import digest, require_room, stamp, write_json
from anomalens.images.content import content_key
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.locks import locked
from anomalens.methods.base import Method
from anomalens.untrusted import read_json

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
    """Return frozen features and masks [B, S, S] bool of samples. Raises InputError where a file cannot be read."""
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
    return method.encode_frozen(clip, batch, keys), np.stack(masks)


@dataclass(frozen=True)
class CacheProgress:
    """Say what a cache folder holds: the content of `progress.json`."""

    # Rows and columns of patches, h and w.
    grid: tuple[int, int]
    # S, pixels.
    side: int
    # Taps of each request.
    taps: tuple[int, ...]
    # Images whose features are there, from the first.
    done: int
    # For each batch: `done` after it, and the CRC-32 of its rows in all files.
    sums: tuple[tuple[int, int], ...]

    @classmethod
    def read(cls, folder: Path) -> "CacheProgress | None":
        """Return what a folder holds; None where it holds nothing, or something damaged."""
        try:
            return typed_values.build(cls, read_json(folder / "progress.json", named="cache"))
        except ConfigError:
            return None

    @property
    def names(self) -> list[str]:
        """Return the names of the files, without their suffix."""
        dense = [f"dense-{request}-{tap}" for request, taps in enumerate(self.taps) for tap in range(taps)]
        return ["cls", *dense, "masks"]

    def matches(self, folder: Path, images: int) -> bool:
        """Tell whether the files of a folder are whole, and hold what was written to them."""
        try:
            files = {name: _load(folder, name) for name in self.names}
        except (OSError, ValueError, EOFError):
            return False
        if any(len(file) != images for file in files.values()) or self.done > images:
            return False
        starts = [0, *(end for end, _ in self.sums)]
        return starts[-1] == self.done and all(
            _crc(file[start:end] for file in files.values()) == crc
            for start, (end, crc) in zip(starts, self.sums, strict=False)
        )


def _load(folder: Path, name: str) -> np.ndarray:
    array: np.ndarray = np.load(folder / f"{name}.npy", mmap_mode="r")
    return array


def _crc(parts: Iterable[np.ndarray]) -> int:
    total = 0
    for part in parts:
        total = zlib.crc32(np.ascontiguousarray(part).data, total)
    return total


class Cached:
    """Give batches from a cache folder that `build` has filled."""

    def __init__(self, folder: Path, method: Method, clip: Clip, samples: Sequence[Sample]) -> None:
        """Raise InputError where the folder does not say what it holds."""
        progress = CacheProgress.read(folder)
        if progress is None:
            raise InputError(f"{folder}: no cache of features, or a damaged one; delete the folder and start again")
        self.method, self.clip, self.samples = method, clip, samples
        self.device, self.grid, self.side = clip.visual.proj.device, progress.grid, progress.side
        files = {name: _load(folder, name) for name in progress.names}
        self._cls, self._masks = files["cls"], files["masks"]
        self._dense = [[files[f"dense-{r}-{t}"] for t in range(taps)] for r, taps in enumerate(progress.taps)]

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
        features = self.method.encode_learned(self.clip, Features(read(self._cls), dense, self.grid))
        samples = [self.samples[i] for i in rows]
        labels = torch.tensor([int(s.label or 0) for s in samples], device=self.device)
        truth = torch.from_numpy(masks).float().to(self.device)
        return TrainingBatch(features, truth, labels, tuple(s.class_name for s in samples))


def cache_key(method: Method, weights_hash: str, samples: Sequence[Sample], recipe: Preprocess, extra: str = "") -> str:
    """Name a cache: equal only where every feature would be. `extra` holds further settings of the image side."""
    files = [(s.id, str(s.mask and s.mask.name), stamp(s.image), stamp(s.mask)) for s in samples]
    streams = [asdict(request) for request in method.dense]
    if type(method).encode_learned is not Method.encode_learned:
        extra += f" {type(method).__name__} before anything learned"
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
        ConfigError: another process fills the folder, and has not ended in ten minutes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, "features", wait=True):
        _fill(folder, method, clip, samples, recipe, batch, progress, announce)
    return Cached(folder, method, clip, samples)


def _fill(
    folder: Path,
    method: Method,
    clip: Clip,
    samples: Sequence[Sample],
    recipe: Preprocess,
    batch: int,
    progress: Progress | None,
    announce: Callable[[int], None] | None,
) -> None:
    """Compute what is missing of a cache folder; arguments as for `build`."""
    filled = CacheProgress.read(folder)
    if filled is None or not filled.matches(folder, len(samples)):
        filled = CacheProgress((0, 0), recipe.size, (), 0, ())
    files: dict[str, np.memmap] = {}
    room = Room()
    for start in range(filled.done, len(samples), batch):
        chosen = samples[start : start + batch]
        parts = room.in_parts(len(chosen), partial(_rows, method, clip, chosen, recipe))
        (features, first), *_ = parts
        values = {name: np.concatenate([rows[name] for _, rows in parts]) for name in first}
        if not files:
            size = len(samples) * sum(array[0].nbytes for array in values.values())
            if announce:
                announce(size)
            files = _open(folder, values, len(samples), size if start == 0 else None)
        for name, array in values.items():
            files[name][start : start + len(chosen)] = array
            files[name].flush()
        done = start + len(chosen)
        filled = replace(filled, grid=features.grid, taps=tuple(map(len, features.dense)), done=done)
        filled = replace(filled, sums=(*filled.sums, (done, _crc(values[name] for name in filled.names))))
        # Written last: what it counts is on disk.
        write_json(folder / "progress.json", asdict(filled))
        if progress:
            progress(done, len(samples))


def _rows(
    method: Method, clip: Clip, samples: Sequence[Sample], recipe: Preprocess, part: slice
) -> tuple[Features, dict[str, np.ndarray]]:
    """Return the frozen features of some samples, and what the files of a cache take of them, by their names."""
    with torch.no_grad():
        features, masks = _encode(method, clip, samples[part], recipe)
    values = {name: tensor.half().cpu().numpy() for name, tensor in _named(features).items()}
    return features, values | {"masks": np.packbits(masks.reshape(len(masks), -1), axis=1)}


def _named(features: Features) -> dict[str, Tensor]:
    """Return the tensors of features by the names of their files."""
    assert features.cls is not None
    dense = {f"dense-{r}-{t}": tap for r, request in enumerate(features.dense) for t, tap in enumerate(request)}
    return {"cls": features.cls, **dense}


def _open(folder: Path, values: dict[str, np.ndarray], images: int, size: int | None) -> dict[str, np.memmap]:
    """Open the files for `images` rows like `values`; a new cache of `size` bytes, or (None) those that are there."""
    if size is not None:
        require_room(folder, size, "the features")
    mode: Any = "r+" if size is None else "w+"
    return {
        name: np.lib.format.open_memmap(
            folder / f"{name}.npy", mode, array.dtype, None if size is None else (images, *array.shape[1:])
        )
        for name, array in values.items()
    }
