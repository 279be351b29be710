"""Check weights against the sizes they are loaded for, and identify them by a hash."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from anomalens.backbones.config import ClipConfig
from anomalens.backbones.tower import Clip
from anomalens.errors import WeightsError

_NAMED = 3  # tensors named in one error


def check(state: dict[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """Return the same weights as float32, after making sure that they are what `config` needs.

    Raises:
        WeightsError: tensors are missing, superfluous, of another shape, not numbers or not finite; each is named.
    """
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Clip(config).canonical_state_dict().items()}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        parts = [_listed("missing", missing)] if missing else []
        parts += [_listed("unexpected", unexpected)] if unexpected else []
        raise WeightsError(f"not the weights of this CLIP: {'; '.join(parts)}")
    wrong = [name for name in expected if state[name].shape != expected[name]]
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"{first}: expected shape {list(expected[first])}, found {list(state[first].shape)}"
            + (f" (and {len(wrong) - 1} more tensors of wrong shape)" if len(wrong) > 1 else "")
            + "; the config and the weights do not belong together"
        )
    integers = sorted(name for name in expected if not state[name].is_floating_point())
    if integers:
        raise WeightsError(f"{_listed('not floating point', integers)}; quantised weights are not read")
    full = {name: state[name].to(torch.float32).contiguous() for name in sorted(expected)}
    check_finite(full, "the weights")
    return full


def check_finite(state: dict[str, Tensor], label: str) -> None:
    """Raise WeightsError naming the tensors of `label` that hold NaN or infinity."""
    # The sum of numbers that are not all finite is not finite. It may also overflow; only then is every number read.
    bad = [name for name, t in state.items() if not t.sum().isfinite() and not t.isfinite().all()]
    if bad:
        raise WeightsError(f"{label} hold NaN or infinity: {_listed('tensors', bad)}; get them again")


def _listed(label: str, names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _NAMED else ""
    return f"{label} {', '.join(names[:_NAMED])}{more}"


def fingerprint(state: dict[str, Tensor], config: ClipConfig) -> str:
    """Return the sha256 (hex) of the config and of every tensor's name, shape and bytes.

    The same weights have the same fingerprint in any file and layout, so it identifies them, and features computed
    with them can be cached under it. Tensors are hashed in parallel: hashing releases the interpreter's lock.
    """

    def hash_tensor(name: str) -> bytes:
        tensor = state[name].detach().cpu().contiguous()
        head = f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode()
        content = hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).digest()
        return hashlib.sha256(head + content).digest()

    whole = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    with ThreadPoolExecutor() as pool:
        for part in pool.map(hash_tensor, sorted(state)):
            whole.update(part)
    return whole.hexdigest()
