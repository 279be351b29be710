"""Frozen features, computed once: the tower runs over the auxiliary data one time, however many epochs follow.

There is no augmentation and the image side of these methods learns nothing, so its output never changes. It is kept in
half precision in memory-mapped files, keyed by weights, preprocessing, what the method reads, and the images; a build
that was stopped goes on where it stopped. Where the image side does learn (AdaCLIP), `Pixels` gives the same batches by
running the tower each time.

Files of a cache folder: `cls.npy` [M, E], `dense-R-T.npy` [M, N, E or D] for tap T of request R, `masks.npy`
[M, ⌈S²/8⌉] of bits, `progress.json` (shapes, and how many images are done).

Shapes: M images of the data, B of a batch, N = h*w patches, S pixels a side.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from anomalens.backbones.tower import Clip, Features
from anomalens.datasets.layouts import Sample, read_truth
from anomalens.errors import InputError
from anomalens.files import require_room, stamp, write_json
from anomalens.images.content import content_key
from anomalens.images.decoding import decode
from anomalens.images.preprocessing import Preprocess, preprocess
from anomalens.methods.base import Method

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass
class Batch:
    """What a loss takes."""

    features: Features
    masks: Tensor  # [B, S, S] float, 1 = abnormal
    labels: Tensor  # [B] 1 = abnormal
    names: tuple[str, ...]  # class of each image


class Source(Protocol):
    """Auxiliary data a method can be trained on."""

    def __len__(self) -> int:
        """M."""

    def batch(self, indices: Sequence[int]) -> Batch:
        """The images of these numbers, on the tower's device."""


def usable(samples: Sequence[Sample]) -> list[Sample]:
    """Samples that pixel losses can learn from: labelled, and anomalous ones with a mask.

    An anomalous image without a mask would teach that its defect is normal. Raises InputError where none or only one
    kind is left.
    """
    kept = [s for s in samples if s.label == 0 or (s.label == 1 and s.mask is not None)]
    if {s.label for s in kept} != {0, 1}:
        raise InputError(
            f"{len(samples)} images hold {sum(s.label == 0 for s in kept)} normal and {sum(s.label == 1 for s in kept)}"
            " anomalous ones with a mask; training needs both"
        )
    return kept


def read_sample(sample: Sample, how: Preprocess) -> tuple[Tensor, np.ndarray, int]:
    """Pixels [3, S, S], mask bool [S, S] and content key of a sample. Raises InputError where it cannot be read."""
    rgb = decode(sample.image).rgb
    mask = read_truth(sample, (how.size, how.size))
    if mask is None:
        raise InputError(f"{sample.image}: anomalous without a mask; leave it out, or add its mask")
    return torch.from_numpy(preprocess(rgb, how)), mask, content_key(rgb)


class Pixels:
    """Batches straight from image files: the tower runs every time, with gradient into the method's own prompts."""

    def __init__(self, method: Method, clip: Clip, samples: Sequence[Sample], how: Preprocess) -> None:
        self.method, self.clip, self.samples, self.how = method, clip, samples, how

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int]) -> Batch:
        """See `Source`."""
        chosen = [self.samples[i] for i in indices]
        pixels, masks, keys = zip(*(read_sample(s, self.how) for s in chosen), strict=True)
        device = self.clip.visual.proj.device
        features = self.method.encode(self.clip, torch.stack(pixels).to(device), keys)
        return _batch(features, torch.from_numpy(np.stack(masks)).float(), chosen, device)


class Cached:
    """Batches from a cache folder that `build` has filled."""

    def __init__(self, folder: Path, samples: Sequence[Sample], device: torch.device) -> None:
        self.folder, self.samples, self.device = folder, samples, device
        about = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        self.grid: tuple[int, int] = (about["grid"][0], about["grid"][1])
        self.side = int(about["side"])
        self._cls = np.load(folder / "cls.npy", mmap_mode="r")
        self._dense = [
            [np.load(folder / f"dense-{r}-{t}.npy", mmap_mode="r") for t in range(taps)]
            for r, taps in enumerate(about["taps"])
        ]
        self._masks = np.load(folder / "masks.npy", mmap_mode="r")

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, indices: Sequence[int]) -> Batch:
        """See `Source`."""
        rows = list(indices)

        def read(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array[rows]).to(self.device).float()

        dense = tuple(tuple(read(tap) for tap in request) for request in self._dense)
        features = Features(read(self._cls), dense, self.grid)
        bits = np.unpackbits(self._masks[rows], axis=1, count=self.side**2)
        masks = torch.from_numpy(bits).view(len(rows), self.side, self.side).float()
        return _batch(features, masks, [self.samples[i] for i in rows], self.device)


def _batch(features: Features, masks: Tensor, samples: Sequence[Sample], device: torch.device) -> Batch:
    labels = torch.tensor([int(s.label or 0) for s in samples], device=device)
    return Batch(features, masks.to(device), labels, tuple(s.class_name for s in samples))


def cache_key(method: Method, weights_hash: str, samples: Sequence[Sample], how: Preprocess, extra: str = "") -> str:
    """Names a cache: equal only where every feature would be. `extra` holds further settings of the image side."""
    files = [(s.id, str(s.mask and s.mask.name), stamp(s.image), stamp(s.mask)) for s in samples]
    what = [weights_hash, asdict(how), [asdict(d) for d in method.dense], method.cls, method.positions, extra, files]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:32]


def needed_bytes(features: Features, images: int, side: int) -> int:
    """Size of a cache of `images` images, from the features of one batch."""
    tensors = [features.cls, *(tap for request in features.dense for tap in request)]
    numbers = sum(t[0].numel() for t in tensors if t is not None)
    return images * (2 * numbers + -(-(side**2) // 8))


def build(
    folder: Path,
    method: Method,
    clip: Clip,
    samples: Sequence[Sample],
    how: Preprocess,
    *,
    batch: int = 8,
    progress: Progress | None = None,
    announce: Callable[[int], None] | None = None,
) -> Cached:
    """Fill a cache folder, or what is missing of it, and open it.

    Args:
        folder: its own folder, named by `cache_key`.
        batch: images in one pass of the tower.
        progress: called after every batch.
        announce: called with the size in bytes before anything is written.

    Raises:
        InputError: an image or mask cannot be read, or the disk has no room for the cache.
    """
    device = clip.visual.proj.device
    about_file = folder / "progress.json"
    done = json.loads(about_file.read_text(encoding="utf-8"))["done"] if about_file.is_file() else 0
    arrays: list[np.ndarray] = []
    about: dict[str, object] = {}
    for start in range(done, len(samples), batch):
        chosen = samples[start : start + batch]
        pixels, masks, keys = zip(*(read_sample(s, how) for s in chosen), strict=True)
        with torch.no_grad():
            features = method.encode(clip, torch.stack(pixels).to(device), keys)
        assert features.cls is not None
        tensors = [features.cls, *(tap for request in features.dense for tap in request)]
        if not arrays:
            taps = [len(request) for request in features.dense]
            about = {"grid": list(features.grid), "side": how.size, "taps": taps}
            if announce:
                announce(needed_bytes(features, len(samples), how.size))
            arrays = _open(folder, tensors, taps, len(samples), how.size, new=done == 0)
        values = [t.half().cpu().numpy() for t in tensors]
        values.append(np.packbits(np.stack(masks).reshape(len(chosen), -1), axis=1))
        for array, value in zip(arrays, values, strict=True):
            array[start : start + len(chosen)] = value
            array.flush()  # type: ignore[attr-defined]
        # Written last: what it counts is on disk.
        write_json(about_file, about | {"done": start + len(chosen)})
        if progress:
            progress(start + len(chosen), len(samples))
    return Cached(folder, samples, device)


def _open(
    folder: Path, tensors: list[Tensor], taps: list[int], images: int, side: int, *, new: bool
) -> list[np.ndarray]:
    names = ["cls", *(f"dense-{r}-{t}" for r, count in enumerate(taps) for t in range(count)), "masks"]
    shapes: list[tuple[int, ...]] = [(images, *t.shape[1:]) for t in tensors]
    shapes.append((images, -(-(side**2) // 8)))
    kinds = [np.float16] * len(tensors) + [np.uint8]
    folder.mkdir(parents=True, exist_ok=True)
    if new:
        wanted = sum(int(np.prod(s)) * np.dtype(k).itemsize for s, k in zip(shapes, kinds, strict=True))
        require_room(folder, wanted, "the features")
    return [
        np.lib.format.open_memmap(
            folder / f"{name}.npy", mode="w+" if new else "r+", dtype=kind, shape=shape if new else None
        )
        for name, shape, kind in zip(names, shapes, kinds, strict=True)
    ]
