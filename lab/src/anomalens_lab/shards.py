"""Keep training scenes on disk as shards, and augment them anew each time they are drawn into a batch.

A shard is images [S, H, W, 3] uint8 and defect kinds by pixel [S, H, W] uint8 (index into `words.KINDS`, 0 = sound)
as .npy files, and a JSON list of words, written last: a shard without words does not count. It depends on the seed and
its number alone, so an interrupted preparation goes on where it stopped, and several processes may paint.

Shapes: B images, H W pixels, h w patch grid.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from anomalens.errors import InputError
from anomalens.files import atomic_write

PATCH = 16  # pixels a side of one token of the bundled backbone
SHARD = 256  # scenes a file
SHARDS = "[0-9]*.json"  # pattern of the shards of a folder
SETTINGS = "settings.json"  # file of the settings that the shards of a folder were painted with
_ENLARGED = (1.2, 3.0)  # times that soft pictures were enlarged, at least and at most


@dataclass
class Batch:
    """Hold augmented images with the truth about them."""

    # [B, 3, H, W] in 0..1.
    pixels: Tensor
    # [B, h, w] share of each patch that is defective.
    cover: Tensor
    # [B, h, w] int64, index into `words.KINDS`; 0 = sound.
    kinds: Tensor
    captions: list[str]
    subjects: list[str]

    @property
    def abnormal(self) -> Tensor:
        """Return True where something of a defect is left in the picture, [B]."""
        return self.cover.flatten(1).sum(1) > 0.02


def write_shard(path: Path, images: npt.NDArray[Any], kinds: npt.NDArray[Any], words: list[dict[str, Any]]) -> None:
    """Write the three files of a shard, `path` being that of its words (.json), each atomically."""
    for name, array in (("images", images), ("kinds", kinds)):
        raw = io.BytesIO()
        np.save(raw, array)
        atomic_write(path.with_suffix(f".{name}.npy"), raw.getvalue())
    atomic_write(path, json.dumps(words))


def read_settings(folder: Path) -> dict[str, Any] | None:
    """Read the settings that the scenes of a folder were painted with; None where there are none to read."""
    try:
        return dict(json.loads((folder / SETTINGS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


class Scenes:
    """Hold all shards of a folder, mapped into memory: scenes that are not drawn are not read."""

    def __init__(self, folder: Path) -> None:
        """Open the shards. Raises InputError where the folder holds none."""
        self._images: list[npt.NDArray[Any]] = []
        self._kinds: list[npt.NDArray[Any]] = []
        self.words: list[dict[str, Any]] = []
        for path in sorted(folder.glob(SHARDS)):
            self._images.append(np.load(path.with_suffix(".images.npy"), mmap_mode="r"))
            self._kinds.append(np.load(path.with_suffix(".kinds.npy"), mmap_mode="r"))
            self.words += json.loads(path.read_text(encoding="utf-8"))
        if not self._images:
            raise InputError(f"no scenes in {folder}; paint them first")
        self.settings = read_settings(folder)

    def __len__(self) -> int:
        return len(self.words)

    def image(self, index: int) -> npt.NDArray[Any]:
        """Return the image of a scene, [H, W, 3] uint8."""
        return np.asarray(self._images[index // SHARD][index % SHARD])

    def kind(self, index: int) -> npt.NDArray[Any]:
        """Return the kinds of a scene's pixels, [H, W] uint8."""
        return np.asarray(self._kinds[index // SHARD][index % SHARD])

    def batch(
        self,
        indices: Sequence[int],
        side: int,
        rng: np.random.Generator,
        augment: bool = True,
        twins: bool = False,
        apart: float = 0.0,
        soft: float = 0.0,
        uneven: float = 0.0,
        patch: int = PATCH,
        device: torch.device | str = "cpu",
    ) -> Batch:
        """Draw the scenes at `indices` as a batch of `side` x `side` pixels; all randomness comes from `rng`.

        Args:
            augment: crop, mirror, turn and change the light at random; otherwise the scenes are only resized.
            twins: every second scene is cropped and turned as the one before it.
            apart: share of the twins for which this is not so.
            soft: share of the twins that are as soft as photographs which were enlarged.
            uneven: share of the images that are lit from one side or darker at the edges; twins each in their own way.
            patch: pixels a side of the cells of `cover` and `kinds`.
            device: where to compute, and where the tensors are; each device has a noise of its own.
        """
        stored = np.stack([self.kind(i) for i in indices])
        frames = [_frame(rng, kinds) if augment else np.eye(2, 3) for kinds in stored]
        if twins:
            # Without a share nothing is drawn: what is seen with a seed must not change.
            together = rng.random(len(indices) // 2) >= apart if apart else np.ones(len(indices) // 2, bool)
            frames[1::2] = [frames[2 * k + (not same)] for k, same in enumerate(together)]
        images = torch.from_numpy(np.stack([self.image(i) for i in indices])).to(device)
        images = images.permute(0, 3, 1, 2).float() / 255
        for first in range(0, len(indices) if soft else 0, 2):
            if rng.random() < soft:
                images[first : first + 2] = _softened(images[first : first + 2], side / rng.uniform(*_ENLARGED))
        kinds = torch.from_numpy(stored).to(device).float()[:, None]
        theta = torch.tensor(np.stack(frames), dtype=torch.float32, device=device)
        grid = F.affine_grid(theta, [len(indices), 3, side, side], align_corners=False)
        # Without halving first, small sizes would alias.
        source = F.avg_pool2d(images, 2) if images.shape[-1] >= 2 * side else images
        pixels = F.grid_sample(source, grid, padding_mode="reflection", align_corners=False)
        for index in range(len(indices) if uneven else 0):
            if rng.random() < uneven:
                pixels[index] *= torch.from_numpy(_uneven_light(rng, side)).to(device)
        seen = F.grid_sample(kinds, grid, mode="nearest", padding_mode="reflection", align_corners=False)
        words = [self.words[i] for i in indices]
        return Batch(
            _photometric(rng, pixels.clamp(0, 1)) if augment else pixels.clamp(0, 1),
            F.avg_pool2d((seen > 0).float(), patch)[:, 0],
            F.max_pool2d(seen, patch)[:, 0].long(),
            [str(w["captions"][int(rng.integers(len(w["captions"])))]) for w in words],
            [str(w["subject"]) for w in words],
        )


def _softened(images: Tensor, side: float) -> Tensor:
    """Return images [B, 3, H, W] as they look where only `side` x `side` pixels were photographed and enlarged."""
    small = F.interpolate(images, size=round(side), mode="bilinear", antialias=True)
    return F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(0, 1)


def _uneven_light(rng: np.random.Generator, side: int) -> npt.NDArray[np.float32]:
    """Draw a light [side, side], 1 in the middle: a slope across the image, and darker or brighter at the edges."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, side)] * 2, indexing="ij")
    across, down, outwards = rng.uniform((-0.6, -0.6, -0.6), (0.6, 0.6, 0.15))
    return np.asarray(np.exp(across * x + down * y + outwards * (x**2 + y**2)), np.float32)


def _frame(rng: np.random.Generator, kinds: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Draw a crop with its aspect changed, mirrored or turned by quarters: an affine map [2, 3] of output to input.

    A crop that would lose most of a defect is not taken, since the caption speaks of the defect.
    """
    mirror = rng.choice([-1.0, 1.0], 2)
    turn = np.array([[0.0, 1.0], [1.0, 0.0]]) if rng.random() < 0.5 else np.eye(2)
    area = float((kinds > 0).sum())
    h, w = kinds.shape
    for _ in range(4):
        if rng.random() < 0.35:
            break
        size = rng.uniform(0.6, 1.0) * np.exp(rng.uniform(-0.25, 0.25) * np.array([1.0, -1.0]))
        size = np.minimum(size, 1.0)
        centre = rng.uniform(-1, 1, 2) * (1 - size)
        x0, x1 = ((centre[0] + np.array([-1, 1]) * size[0] + 1) / 2 * w).astype(int)
        y0, y1 = ((centre[1] + np.array([-1, 1]) * size[1] + 1) / 2 * h).astype(int)
        if area and float((kinds[y0:y1, x0:x1] > 0).sum()) < 0.7 * area:
            continue
        return np.concatenate([np.diag(size) @ np.diag(mirror) @ turn, centre[:, None]], axis=1)
    return np.concatenate([np.diag(mirror) @ turn, np.zeros((2, 1))], axis=1)


def _photometric(rng: np.random.Generator, pixels: Tensor) -> Tensor:
    """Change camera and light: exposure, contrast, tint, grey, blur, noise. [B, 3, H, W] in 0..1."""
    b = pixels.shape[0]

    device = pixels.device

    def draw(low: float, high: float, shape: tuple[int, ...] = (1, 1, 1)) -> Tensor:
        return torch.tensor(rng.uniform(low, high, (b, *shape)), dtype=torch.float32, device=device)

    def some(share: float) -> Tensor:
        return torch.tensor(rng.random((b, 1, 1, 1)) < share, dtype=torch.float32, device=device)

    noise = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    mean = pixels.mean((1, 2, 3), keepdim=True)
    x = mean + (pixels - mean) * torch.exp(draw(-0.5, 0.25) * some(0.6))
    x = (x * torch.exp(draw(-0.35, 0.35) * some(0.6))).clamp(0, 1) + 1e-4
    x = x ** torch.exp(draw(-0.35, 0.35) * some(0.5))
    x = x * (1 + draw(-0.08, 0.08, (3, 1, 1)) * some(0.5))
    grey = (x * pixels.new_tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    saturation = torch.where(some(0.25) > 0, pixels.new_zeros(()), 1 + draw(-0.5, 0.3) * some(0.5))
    x = grey + (x - grey) * saturation
    soft = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), 3, 1)
    x = x + (soft - x) * draw(-0.3, 0.9) * some(0.35)
    amount = torch.exp(draw(-6.0, -3.2)) * some(0.5)
    x = x + amount * torch.randn(x.shape, generator=noise, device=device)
    return x.clamp(0, 1)
