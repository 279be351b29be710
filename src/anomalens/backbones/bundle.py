"""Read and write this project's own file of CLIP weights: one `.safetensors` whose header says how to use them.

Keys of the header (safetensors keeps strings only, so structured values are JSON): `format` "anomalens-clip", `schema`
"1", `config` (ClipConfig), `mean`, `std`, `interpolation`, `licence`, `version`, `metrics`, `sha256` (`fingerprint` of
config and weights, compared at every load). Tensors have OpenAI's names.
"""

import json
import os
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomalens.backbones.config import ClipConfig
from anomalens.errors import WeightsError
from anomalens.files import atomic_write
from anomalens.images.normalisation import PixelFormat
from anomalens.typed_values import checked_value
from anomalens.untrusted import json_value, read_header

if TYPE_CHECKING:
    import torch

    from anomalens.backbones.tower import Clip

FORMAT, SCHEMA = "anomalens-clip", "1"
BUNDLED_FILE = Path(str(files("anomalens").joinpath("bundled", "weights.safetensors")))


@dataclass(frozen=True)
class BundleInfo:
    """Hold what the header says."""

    config: ClipConfig
    pixels: PixelFormat
    licence: str
    # Version of the weights, not of the package.
    version: str
    # What the weights reached, as the model card has it.
    metrics: dict[str, Any] = field(default_factory=dict)
    # Fingerprint of config and weights.
    sha256: str = ""

    def to_metadata(self) -> dict[str, str]:
        """Return the header, strings only."""
        return {
            "format": FORMAT,
            "schema": SCHEMA,
            "config": json.dumps(self.config.to_dict()),
            "mean": json.dumps(self.pixels.mean),
            "std": json.dumps(self.pixels.std),
            "interpolation": self.pixels.interpolation,
            "licence": self.licence,
            "version": self.version,
            "metrics": json.dumps(self.metrics, allow_nan=False),
            "sha256": self.sha256,
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], source: str) -> "BundleInfo":
        """Read what `to_metadata` wrote; `source` names the file in errors. Raises WeightsError."""
        if metadata.get("format") != FORMAT:
            raise WeightsError(f"{source}: not a backbone of this project (no {FORMAT!r} header)")
        if metadata.get("schema") != SCHEMA:
            raise WeightsError(
                f"{source}: header of schema {metadata.get('schema')!r}, this version reads {SCHEMA!r}; "
                "install a version of anomalens as new as the weights"
            )
        try:
            config, mean, std, metrics = (json_value(metadata[name]) for name in ("config", "mean", "std", "metrics"))
            return cls(
                config=ClipConfig.from_dict(config),
                pixels=PixelFormat.parse(mean, std, metadata["interpolation"]),
                licence=metadata["licence"],
                version=metadata["version"],
                metrics=checked_value("metrics", metrics, dict[str, Any]),
                sha256=metadata["sha256"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsError(f"{source}: damaged header ({error}); get the file again") from error


def read_bundle_info(path: str | os.PathLike[str]) -> BundleInfo:
    """Read the header of a file, without its tensors and without torch. Raises WeightsError."""
    if not os.path.lexists(path):
        raise WeightsError(f"{path}: no such file; reinstall anomalens if it belongs to the package")
    return BundleInfo.from_metadata(read_header(path, error=WeightsError), str(path))


def save_bundle(
    path: str | os.PathLike[str],
    clip: "Clip",
    *,
    licence: str,
    version: str,
    pixels: PixelFormat | None = None,
    metrics: dict[str, Any] | None = None,
    dtype: "torch.dtype | None" = None,
) -> BundleInfo:
    """Write a dual encoder as one self-describing file, atomically, and return its header.

    Args:
        path: the file to write; a file that exists stays untouched until the new one is whole.
        licence, version, metrics: what the model card says of the weights.
        pixels: how its images were prepared; None takes what `clip` says of itself.
        dtype: precision in the file (float16 halves it); None keeps the tower's. Loading gives float32 again.

    Raises:
        WeightsError: a weight is not finite, also where it does not fit into `dtype`.
    """
    from safetensors.torch import save

    from anomalens.backbones.checks import check_finite, fingerprint

    weights = {name: tensor.detach().cpu() for name, tensor in clip.canonical_state_dict().items()}
    weights = {name: (tensor.to(dtype) if dtype else tensor).contiguous() for name, tensor in weights.items()}
    read_back = {name: tensor.float() for name, tensor in weights.items()}
    check_finite(read_back, f"weights for {path}")
    info = BundleInfo(clip.config, pixels or clip.pixels, licence, version, metrics or {})
    info = replace(info, sha256=fingerprint(read_back, clip.config))
    atomic_write(path, save(weights, info.to_metadata()))
    return info
