"""Fixtures of the laboratory's tests."""

from pathlib import Path

import pytest
import torch

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.tower import Clip


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of random weights of a dual encoder small enough for every test: 4 x 4 patches at 64 pixels."""
    torch.manual_seed(0)
    vision = VisionConfig(image_size=64, patch=16, width=128, layers=6, heads=2)
    clip = Clip(ClipConfig(vision, TextConfig(width=64, layers=3, heads=1), joint=32, activation="gelu"))
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, clip, licence="none", version="0")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from reading and writing the user's cache of text features."""
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
