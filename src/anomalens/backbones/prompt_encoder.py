"""Encode sentences as text features, each list once: kept in memory, and on disk where a folder is given."""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip
from anomalens.files import atomic_write, digest

KEPT = 32
"""Lists of prompts whose features stay in memory; the one not used for longest goes first. The largest, AnoCLIP's 924
sentences, takes 2.4 MB at E = 640."""

_BATCH = 256  # prompts a pass: bounds memory, changes nothing else


class PromptEncoder:
    """Encode prompts with a text tower and remember the features under (weights hash, precision, prompts).

    Threads may share it: a list that several of them ask for at once is encoded once. Pickled, it leaves its memory.

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
        self._memory: OrderedDict[str, Tensor] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return PromptEncoder, (self.clip, self.weights_hash, self.folder)

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Return features [P, E], float32 on the tower's device, not normalised, in the order of `prompts`.

        The tensor is shared between calls and must not be changed.
        """
        table = self.clip.text.positional_embedding
        key = digest("\n".join([self.weights_hash, str(table.dtype), *prompts]))
        with self._lock:
            if key not in self._memory:
                features = self._read(key)
                if features is None:
                    features = self._encode(prompts)
                    self._write(key, features)
                self._memory[key] = features.to(table.device)
            self._memory.move_to_end(key)
            if len(self._memory) > KEPT:
                self._memory.popitem(last=False)
            return self._memory[key]

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
