"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

from anomalens.backbones.bundle import save_bundle
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.tower import Clip
from anomalens.decision.capture import Capture

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the reference material beside the project; tests that need it skip where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"reference material is not at {SHARED.name}/ beside the project")
    return SHARED


@pytest.fixture(scope="session")
def tiny_config() -> ClipConfig:
    """Return a dual encoder small enough for every test: 4 x 4 patches at 64 pixels, 6 blocks."""
    vision = VisionConfig(image_size=64, patch=16, width=128, layers=6, heads=2)
    return ClipConfig(vision, TextConfig(width=64, layers=3, heads=1), joint=32, activation="gelu")


@pytest.fixture(scope="session")
def tiny_clip(tiny_config: ClipConfig) -> Clip:
    """Return random weights of `tiny_config`, frozen, in eval mode. Tests must not change it."""
    torch.manual_seed(0)
    return Clip(tiny_config).eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_weights(tiny_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write `tiny_clip` as a file that says its own sizes, for everything that starts from weights on disk."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_bundle(path, tiny_clip, licence="none", version="0")
    return path


@pytest.fixture(scope="session")
def tiny_dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write DINOv2 with random weights as a folder: four blocks, 5 x 5 positions, patches of 14 pixels."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    model = Dinov2Model(
        Dinov2Config(hidden_size=96, num_hidden_layers=4, num_attention_heads=3, image_size=70, patch_size=14)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("dinov2")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep tests from reading and writing the user's cache of text features."""
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def blank_images_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images of one colour, whose scores can be told by hand, be judged like photographs."""
    sharp = Capture(brightness=120, lowest=0, low=0, highest=255, softness=0.2, edge=50, sharpness=3)
    monkeypatch.setattr("anomalens.detection.tiling.measure_capture", lambda rgb: sharp)
