"""Sentences to text features, each computed once: kept in memory, and on disk where a folder is given."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip
from anomalens.files import atomic_write

_BATCH = 256  # prompts a pass: bounds memory, changes nothing else


class PromptEncoder:
    """Encodes prompts with a text tower and remembers the answer under (weights hash, prompts).

    Args:
        clip: the dual encoder; learned prompts reach its text tower as `encoder.clip.text`.
        weights_hash: identifies the weights; features of other weights are never mixed up.
        folder: where features are kept between runs; None keeps them in memory only.
    """

    def __init__(self, clip: Clip, weights_hash: str = "", folder: Path | None = None) -> None:
        self.clip = clip
        self.weights_hash = weights_hash
        self.folder = folder
        self.encoded = 0  # prompts that really went through the tower, for tests that count work
        self._memory: dict[str, Tensor] = {}

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """[P, E] float32 on the tower's device, raw (not normalised), in the order of `prompts`."""
        device = self.clip.text.positional_embedding.device
        key = hashlib.sha256("\n".join([self.weights_hash, str(self._dtype()), *prompts]).encode()).hexdigest()
        if key not in self._memory:
            found = self._read(key)
            if found is None:
                found = self._encode(prompts)
                self._write(key, found)
            self._memory[key] = found.to(device)
        return self._memory[key]

    def _dtype(self) -> torch.dtype:
        return self.clip.text.positional_embedding.dtype

    @torch.no_grad()
    def _encode(self, prompts: Sequence[str]) -> Tensor:
        self.encoded += len(prompts)
        ids = tokenize(prompts).to(self.clip.text.positional_embedding.device)
        return torch.cat([self.clip.text(part) for part in torch.split(ids, _BATCH)]).cpu()

    def _path(self, key: str) -> Path | None:
        # Without a hash of the weights a file could be read back for other weights.
        return self.folder / "text" / f"{key}.safetensors" if self.folder and self.weights_hash else None

    def _read(self, key: str) -> Tensor | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return load(path.read_bytes())["features"]
        except (SafetensorError, OSError, KeyError):
            return None  # a damaged cache entry costs a new computation, nothing else

    def _write(self, key: str, features: Tensor) -> None:
        path = self._path(key)
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, save({"features": features.contiguous()}))
        except OSError:
            return  # a read-only home or a full disk: the features are in memory all the same
