"""Our own file of weights: it describes itself, and damage to it is noticed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import small_clip
from anomalens.backbones import bundle, hub, weights
from anomalens.backbones import registry as backbones
from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones.bundle import read_bundle_info, save_bundle
from anomalens.backbones.checks import fingerprint
from anomalens.backbones.tower import Clip
from anomalens.backbones.weights import load_weights
from anomalens.errors import WeightsError
from anomalens.images.normalisation import PixelFormat


@pytest.fixture
def clip() -> Clip:
    """Return the small CLIP, free to change."""
    state = {name: value.clone() for name, value in small_clip.state().items()}
    return Clip.from_state_dict(layouts.infer_config(state, "gelu"), state)


FACTS: dict[str, Any] = {
    "licence": "Apache-2.0",
    "version": "7",
    "pixels": PixelFormat((0.498, 0.498, 0.498), (0.502, 0.502, 0.502), "bilinear"),
    "metrics": {"elpv": {"auroc": 0.5}},
}


def test_a_bundle_describes_itself(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / "weights.safetensors"
    info = save_bundle(path, clip, **FACTS)
    assert read_bundle_info(path) == info
    assert info.metrics == FACTS["metrics"]
    loaded = load_weights(path)
    assert loaded.config == clip.config
    assert loaded.hash == info.sha256
    assert loaded.pixels == FACTS["pixels"]
    assert loaded.clip().pixels == FACTS["pixels"]
    for name, value in clip.canonical_state_dict().items():
        assert torch.equal(loaded.state[name], value), name


def test_weights_do_not_change_with_their_file(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / "weights.safetensors"
    save_bundle(path, clip, **FACTS)
    loaded = load_weights(path)
    with path.open("r+b") as stream:
        stream.seek(-10_000, 2)
        stream.write(bytes(10_000))
    assert fingerprint(loaded.state, loaded.config) == loaded.hash


def test_a_bundle_in_half_precision(tmp_path: Path, clip: Clip) -> None:
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_bundle(whole, clip, **FACTS)
    info = save_bundle(half, clip, **FACTS, dtype=torch.float16)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded = load_weights(half)
    assert loaded.hash == info.sha256
    assert torch.equal(loaded.state["visual.proj"], clip.visual.proj.half().float())
    clip.visual.proj.data[0, 0] = 1e6
    before = half.read_bytes()
    with pytest.raises(WeightsError, match=r"NaN or infinity: tensors visual.proj"):
        save_bundle(half, clip, **FACTS, dtype=torch.float16)
    assert half.read_bytes() == before


def test_a_bundle_with_a_stem(tmp_path: Path, clip: Clip) -> None:
    vision = replace(clip.config.vision, stem="efficientnet-lite0", layers=1)
    torch.manual_seed(0)
    own = Clip(replace(clip.config, vision=vision)).eval()
    path = tmp_path / "weights.safetensors"
    save_bundle(path, own, **FACTS)
    loaded = load_weights(path)
    again = loaded.clip()
    pixels = torch.randn(1, 3, 48, 48)
    with torch.inference_mode():
        assert torch.equal(own.visual(pixels).cls, again.visual(pixels).cls)


def test_a_changed_bundle_is_noticed(tmp_path: Path, clip: Clip) -> None:
    path = tmp_path / "weights.safetensors"
    info = save_bundle(path, clip, **FACTS)
    state = load_file(path)
    state["visual.proj"] = state["visual.proj"] * 1.001
    path.write_bytes(save(state, info.to_metadata()))
    with pytest.raises(WeightsError, match="do not match their own header"):
        load_weights(path)
    path.write_bytes(save(state, {**info.to_metadata(), "schema": "2"}))
    with pytest.raises(WeightsError, match="schema '2', this version reads '1'; install"):
        load_weights(path)
    for damage in ({"config": "{}"}, {"mean": "[1]"}, {"metrics": "{"}, {"interpolation": "area"}):
        path.write_bytes(save(state, {**info.to_metadata(), **damage}))
        with pytest.raises(WeightsError, match="damaged header"):
            load_weights(path)


def test_headers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError, match="no such file; reinstall"):
        read_bundle_info(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="not a backbone of this project"):
        read_bundle_info(path)
    for content in (b"", b"\xff" * 20, (5).to_bytes(8, "little") + b"[1,2]", (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(content)
        with pytest.raises(WeightsError):
            read_bundle_info(path)


def test_the_bundled_name_reads_the_shipped_file(tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    for module in (bundle, backbones, weights):
        monkeypatch.setattr(module, "BUNDLED_FILE", path)
    monkeypatch.setattr(backbones, "BACKBONES", {})
    assert backbones._bundled() == ()
    with pytest.raises(WeightsError, match="no such file; reinstall anomalens"):
        load_weights("bundled")
    info = save_bundle(path, clip, **FACTS)
    (entry,) = backbones._bundled()
    monkeypatch.setattr(backbones, "BACKBONES", {"bundled": entry})
    assert hub.is_available("bundled")
    loaded = load_weights("bundled", offline=True)
    assert (loaded.name, loaded.hash) == ("bundled", info.sha256)
    assert "version 7" in loaded.source


def test_shipped_weights_are_known_by_hash(tmp_path: Path, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy elsewhere, in another layout, is the shipped backbone; other weights under its name are not."""
    path, copy = tmp_path / "weights.safetensors", tmp_path / "copy"
    monkeypatch.setattr(weights, "BUNDLED_FILE", path)
    small_clip.write_open_clip(copy, clip.canonical_state_dict(), "gelu")
    assert not load_weights(copy).is_bundled
    save_bundle(path, clip, **FACTS)
    assert load_weights(copy).is_bundled
    assert load_weights(copy).name == "copy"
    clip.visual.proj.data[0, 0] += 1
    save_bundle(path, clip, **FACTS)
    assert not load_weights(copy).is_bundled
