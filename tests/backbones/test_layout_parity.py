"""Features equal those of `transformers`' CLIPModel on random weights, through all three layouts."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small_clip
from anomalens.backbones import registry, weights
from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones.config import Activation
from anomalens.backbones.registry import WeightsFile
from anomalens.backbones.weights import LoadedWeights, load_weights

TOLERANCE = 1e-5


@cache
def reference(activation: Activation, heads: int = 2) -> tuple[Any, Tensor, Tensor, Tensor, Tensor]:
    """Return the other implementation with its inputs and features: model, pixels, ids, image and text features."""
    model = small_clip.hugging_face(activation, heads=heads)
    pixels = torch.randn(2, 3, small_clip.IMAGE, small_clip.IMAGE, generator=torch.Generator().manual_seed(1))
    ids = torch.zeros(3, small_clip.CONTEXT, dtype=torch.long)
    for row, length in zip(ids, (2, 7, small_clip.CONTEXT), strict=True):
        row[:length] = torch.arange(length) * 13 % 250 + 1
        row[0], row[length - 1] = small_clip.VOCAB - 2, small_clip.VOCAB - 1
    with torch.no_grad():
        out = model(input_ids=ids, pixel_values=pixels)
        # The joint outputs are normalised; the projections behind them are what is compared.
        image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        text = model.text_projection(model.text_model(input_ids=ids).pooler_output)
    torch.testing.assert_close(image / image.norm(dim=-1, keepdim=True), out.image_embeds)
    return model, pixels, ids, image, text


def assert_same_features(
    loaded: LoadedWeights, activation: Activation, tolerance: float = TOLERANCE, heads: int = 2
) -> None:
    _, pixels, ids, image, text = reference(activation, heads)
    assert loaded.config.activation == activation
    clip = loaded.clip()
    with torch.inference_mode():
        features = clip.visual(pixels).cls
        assert features is not None
        torch.testing.assert_close(features, image, rtol=0, atol=tolerance)
        torch.testing.assert_close(clip.text(ids), text, rtol=0, atol=tolerance)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_hugging_face(tmp_path: Path, activation: Activation) -> None:
    folder = small_clip.write_hugging_face(tmp_path, reference(activation)[0])
    assert_same_features(load_weights(folder), activation)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("custom_text", [False, True], ids=["plain", "text-prefixed"])
def test_open_clip(tmp_path: Path, activation: Activation, custom_text: bool) -> None:
    state = small_clip.openai_names(reference(activation)[0])
    folder = small_clip.write_open_clip(tmp_path, state, activation, custom_text)
    assert_same_features(load_weights(folder), activation)


def test_openai(tmp_path: Path) -> None:
    path = small_clip.write_openai(tmp_path / "weights.pt", small_clip.openai_names(reference("quick_gelu")[0]))
    assert_same_features(load_weights(path), "quick_gelu")


def test_openai_in_half_precision(tmp_path: Path) -> None:
    path = small_clip.write_openai(tmp_path / "half.pt", small_clip.openai_names(reference("quick_gelu")[0]), half=True)
    loaded = load_weights(path)
    assert {value.dtype for value in loaded.state.values()} == {torch.float32}
    assert_same_features(loaded, "quick_gelu", tolerance=2e-2)  # the rounding of the weights, not of the tower


def test_activations_differ() -> None:
    """The two cases above would prove little if the activation did not matter."""
    assert (reference("quick_gelu")[3] - reference("gelu")[3]).abs().max() > 1e-2


def test_one_hash_for_all_layouts(tmp_path: Path) -> None:
    model = reference("quick_gelu")[0]
    state = small_clip.openai_names(model)
    hashes = {
        load_weights(small_clip.write_hugging_face(tmp_path / "hf", model)).hash,
        load_weights(small_clip.write_open_clip(tmp_path / "oc", state, "quick_gelu")).hash,
        load_weights(small_clip.write_open_clip(tmp_path / "custom", state, "quick_gelu", custom_text=True)).hash,
        load_weights(small_clip.write_openai(tmp_path / "oa.pt", state)).hash,
    }
    assert len(hashes) == 1
    assert load_weights(small_clip.write_open_clip(tmp_path / "gelu", state, "gelu")).hash not in hashes


NEW = ["ViT-L-14-laion2b", "ViT-H-14-laion2b", "ViT-L-14-datacomp", "MetaCLIP-ViT-L-14", "MetaCLIP-ViT-H-14"]


@pytest.mark.parametrize("with_config", [True, False], ids=["fetched", "file alone"])
@pytest.mark.parametrize("name", NEW)
def test_weights_by_name(name: str, with_config: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random-weight file as each publisher's, with the table's facts or the publisher's; towers are smaller."""
    entry = registry.find(name)
    heads = 2 if entry.config.vision.width == 64 * entry.config.vision.heads else 1
    model = small_clip.hugging_face(entry.config.activation, heads=heads)
    folder, file = tmp_path / name, entry.files[0].name
    folder.mkdir()
    state = model.state_dict() if file == "pytorch_model.bin" else small_clip.openai_names(model)
    torch.save(state, folder / file)
    if with_config and file == "pytorch_model.bin":
        model.config.save_pretrained(folder)
    elif with_config:
        config = small_clip.open_clip_config(entry.config.activation)
        config["model_cfg"]["vision_cfg"]["head_width"] = small_clip.WIDTH // heads
        config["preprocess_cfg"] = {"mean": entry.pixels.mean, "std": entry.pixels.std}
        (folder / "open_clip_config.json").write_text(json.dumps(config))
    small = layouts.config_from_hugging_face(model.config.to_dict())
    assert small.activation == entry.config.activation
    known = {**registry.BACKBONES, name: replace(entry, config=small, files=(WeightsFile(file, 0),))}
    for module in (registry, weights):
        monkeypatch.setattr(module, "BACKBONES", known)
    loaded = load_weights(name, offline=True, cache_dir=tmp_path)
    assert loaded.pixels == entry.pixels
    assert loaded.config == small
    assert_same_features(loaded, entry.config.activation, heads=heads)


def test_publishers_differ_in_activation_and_pixels() -> None:
    entries = [registry.find(name) for name in NEW]
    assert [entry.config.activation for entry in entries] == ["gelu"] * 3 + ["quick_gelu"] * 2
    assert [entry.pixels.mean == (0.5, 0.5, 0.5) for entry in entries] == [True, *[False] * 4]
    assert [entry.config.vision.heads for entry in entries] == [16] * 5
