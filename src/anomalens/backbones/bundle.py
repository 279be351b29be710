"""Our own file of CLIP weights: one `.safetensors` whose JSON header says all that must be known to use it.

The header's keys (safetensors keeps strings only, so structured values are JSON): `format` "anomalens-clip", `schema`
"1", `config` (ClipConfig), `mean`, `std`, `interpolation`, `licence`, `version`, `metrics`, `sha256` (the fingerprint
of clip/weights.py over config and weights, checked at every load). Tensors have OpenAI's names.
"""

import json
import os
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from anomalens.backbones.config import ClipConfig
from anomalens.errors import ConfigError, WeightsError

if TYPE_CHECKING:
    import torch

    from anomalens.backbones.tower import Clip

FORMAT, SCHEMA = "anomalens-clip", "1"
BUNDLED_FILE = Path(str(files("anomalens").joinpath("bundled", "weights.safetensors")))
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclass(frozen=True)
class BundleInfo:
    """What the header says."""

    config: ClipConfig
    mean: tuple[float, float, float]  # per channel of RGB in [0, 1]
    std: tuple[float, float, float]
    licence: str
    version: str  # of the weights, not of the package
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    metrics: dict[str, Any] = field(default_factory=dict)  # what they reached, as the model card has it
    sha256: str = ""  # fingerprint of config and weights

    def to_metadata(self) -> dict[str, str]:
        """The header, strings only."""
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "config": json.dumps(self.config.to_dict()),
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "interpolation": self.interpolation,
            "licence": self.licence,
            "version": self.version,
            "metrics": json.dumps(self.metrics, allow_nan=False),
            "sha256": self.sha256,
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], where: str) -> "BundleInfo":
        """The inverse of `to_metadata`; `where` names the file in errors. Raises WeightsError."""
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{where}: not a backbone of this project (no {FORMAT!r} header)")
        if metadata.get("schema") != SCHEMA:
            raise WeightsError(
                f"{where}: header of schema {metadata.get('schema')!r}, this version reads {SCHEMA!r}; "
                "install a version of anomalens as new as the weights"
            )
        try:
            mean, std = (tuple(float(v) for v in json.loads(metadata[key])) for key in ("mean", "std"))
            if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
                raise ValueError(f"mean {mean} and std {std} need 3 values each, std above 0")
            if metadata["interpolation"] not in ("bicubic", "bilinear"):
                raise ValueError(f"interpolation {metadata['interpolation']!r}")
            return cls(
                config=ClipConfig.from_dict(json.loads(metadata["config"])),
                mean=mean,
                std=std,
                licence=metadata["licence"],
                version=metadata["version"],
                interpolation=metadata["interpolation"],  # type: ignore[arg-type]
                metrics=json.loads(metadata["metrics"]),
                sha256=metadata["sha256"],
            )
        except (KeyError, ValueError, TypeError, ConfigError) as error:
            raise WeightsError(f"{where}: damaged header ({error}); get the file again") from error


def read_bundle_info(path: str | os.PathLike[str]) -> BundleInfo:
    """The header of a file, without its tensors and without torch. Raises WeightsError."""
    path = Path(path)
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("header too long")
            header = json.loads(stream.read(length))
        metadata = dict(header.get("__metadata__", {}))
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file; reinstall anomalens if it belongs to the package") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({error}); get it again") from error
    return BundleInfo.from_metadata(metadata, str(path))


def save_bundle(
    path: str | os.PathLike[str],
    clip: "Clip",
    *,
    licence: str,
    version: str,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: Literal["bicubic", "bilinear"] = "bicubic",
    metrics: dict[str, Any] | None = None,
    dtype: "torch.dtype | None" = None,
) -> BundleInfo:
    """Write a dual encoder as one self-describing file, atomically, and return its header.

    Args:
        path: where to; what stood there stays untouched until the new file is whole.
        licence, version, metrics: what the model card says of the weights.
        mean, std, interpolation: how its images were prepared.
        dtype: precision in the file (float16 halves it); None keeps the tower's. Loading gives float32 again.

    Raises:
        WeightsError: a weight is not finite, also where it does not fit into `dtype`.
    """
    from dataclasses import replace

    from safetensors.torch import save

    from anomalens.backbones.weights import check_finite, fingerprint
    from anomalens.files import atomic_write

    kept = {name: tensor.detach().cpu() for name, tensor in clip.canonical_state_dict().items()}
    kept = {name: (tensor.to(dtype) if dtype else tensor).contiguous() for name, tensor in kept.items()}
    read_back = {name: tensor.float() for name, tensor in kept.items()}
    check_finite(read_back, f"weights for {path}")
    info = BundleInfo(clip.config, mean, std, licence, version, interpolation, metrics or {})
    info = replace(info, sha256=fingerprint(read_back, clip.config))
    atomic_write(path, save(kept, info.to_metadata()))
    return info
