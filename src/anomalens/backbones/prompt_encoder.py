"""Encode sentences as text features, each list once: kept in memory, and on disk where a folder is given."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from os.path import isfile
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from anomalens.backbones.tokenizer import tokenize
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError
from anomalens.files import atomic_write, digest
from anomalens.locks import locked
from anomalens.untrusted import read_bytes, read_header

KEPT = 32
"""Lists of prompts whose features stay in memory; the one not used for longest goes first. The largest, AnoCLIP's 924
sentences, takes 2.4 MB at E = 640."""

_MOST_HEADER = 4096  # bytes of an entry besides its numbers
_SUM = "sha256"  # in the header of an entry: the hash of its numbers
_BATCH = 256  # prompts a pass: bounds memory, changes nothing else


class PromptEncoder:
    """Encode prompts with a text tower and remember the features under (weights hash, precision, prompts).

    Threads and processes may share it: a list that several of them ask for at once is encoded once. An entry on disk
    that is damaged is computed anew and replaced. Pickled, it leaves its memory.

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
                shape = (len(prompts), self.clip.text.text_projection.shape[1])
                features = self._read(key, shape)
                if features is None:
                    with self._alone(key):
                        # Another process may have computed it meanwhile.
                        features = self._read(key, shape)
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

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Have one process at a time compute an entry; where no lock can be kept, each computes for itself."""
        path = self._path(key)
        with ExitStack() as stack:
            if path is not None:
                with suppress(OSError, ConfigError):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(locked(path, "text features", wait=True))
            yield

    def _read(self, key: str, shape: tuple[int, int]) -> Tensor | None:
        """Return an entry [P, E]; None where there is none, or what is there is not what was written."""
        path = self._path(key)
        # `Path.is_file` fails where the cache may not be entered.
        if path is None or not isfile(path):
            return None
        try:
            content = read_bytes(path, most_bytes=4 * shape[0] * shape[1] + _MOST_HEADER)
            recorded = read_header(content).get(_SUM)
            features = load(content)["features"]
        except (SafetensorError, ConfigError, ValueError, KeyError):
            return None
        whole = features.shape == shape and features.dtype == torch.float32 and recorded == _sum(features)
        return features if whole and bool(features.isfinite().all()) else None

    def _write(self, key: str, features: Tensor) -> None:
        path = self._path(key)
        if path is None:
            return
        features = features.contiguous()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, save({"features": features}, {_SUM: _sum(features)}))
        except OSError:
            return  # a read-only home or a full disk: the features are in memory all the same


def _sum(features: Tensor) -> str:
    return digest(features.numpy().tobytes())
