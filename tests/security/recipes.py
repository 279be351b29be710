"""A taught part to be damaged."""

import tempfile
from functools import cache
from pathlib import Path

import torch

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.tower import Clip
from anomalens.detection.loading import load_detector
from parts import good_parts

_CONFIG = ClipConfig(
    VisionConfig(image_size=64, patch=16, width=128, layers=6, heads=2),
    TextConfig(width=64, layers=3, heads=1), joint=32, activation="gelu",
)  # fmt: skip


def write_weights(path: Path) -> Path:
    """Write a tiny random backbone; return its path."""
    torch.manual_seed(0)
    save_bundle(path, Clip(_CONFIG).eval(), licence="none", version="0")
    return path


@cache
def taught_part() -> bytes:
    """Return a recipe's file, taught from four drawn parts with the weights of `write_weights`."""
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(Path(folder) / "tiny.safetensors")
        words = load_detector(method="winclip", backbone=str(weights), size=64, device="cpu", object_name="plate")
        words.fit(good_parts(4), words_weight=0.5).save(Path(folder) / "part.anomalens")
        return (Path(folder) / "part.anomalens").read_bytes()
