"""Sizes and preprocessing as the publishers' config files say them, and what does not fit the weights beside them."""

import json
from pathlib import Path
from typing import Any

import pytest

import small_clip
from anomalens.backbones.weights import load_weights
from anomalens.errors import WeightsError
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in open_clip's layout."""
    return small_clip.write_open_clip(tmp_path / "weights", small_clip.state(), "quick_gelu")


def test_hugging_face_preprocessing(tmp_path: Path) -> None:
    folder = small_clip.write_hugging_face(tmp_path, small_clip.hugging_face())
    assert load_weights(folder).pixels == CLIP_PIXELS
    prepared = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 2}
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    loaded = load_weights(folder)
    assert loaded.pixels == PixelFormat((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "bilinear")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"timm_model_name": "vit_b"}}, "asks for timm_model_name"),
        ({"text_cfg": {"hf_model_name": "roberta"}}, "asks for hf_model_name"),
        ({"text_cfg": {"mlp_ratio": 2.0}}, "text mlp_ratio 2.0, this CLIP has 4"),
        ({"vision_cfg": {"layers": [3, 4, 6, 3]}}, "not the config of a CLIP"),
        ({"vision_cfg": {"layers": 4}}, "missing visual.transformer.resblocks.3"),
        ({"vision_cfg": {"image_size": 64}}, r"positional_embedding: expected shape \[17, 128\], found \[10, 128\]"),
        ({"vision_cfg": {"head_width": 100}}, "width 128 is not a multiple of the head width 100"),
        ({"embed_dim": None}, "not the config of a CLIP"),
    ],
)
def test_open_clip_configs_that_do_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    config = small_clip.open_clip_config()
    for key, value in change.items():
        if isinstance(value, dict):
            config["model_cfg"][key] |= value
        else:
            config["model_cfg"][key] = value
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        load_weights(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "siglip"}, "model type 'siglip', expected 'clip'"),
        ({"vision_config": {"hidden_act": "gelu"}}, "activations 'gelu' and 'quick_gelu'"),
        ({"text_config": {"layer_norm_eps": 1e-6}}, "layer_norm_eps 1e-06, this CLIP has 1e-05"),
        ({"vision_config": {"num_attention_heads": 3}}, "width 128 is not a multiple of its 3 heads"),
        ({"vision_config": {"hidden_size": "wide"}}, "not the config of a CLIPModel"),
        ({"projection_dim": 16}, r"expected shape \[64, 16\]|expected shape \[128, 16\]"),
    ],
)
def test_hugging_face_configs_that_do_not_fit(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = small_clip.write_hugging_face(tmp_path, small_clip.hugging_face())
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        if isinstance(value, dict):
            config[key] |= value
        else:
            config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=message):
        load_weights(folder)


def test_old_hugging_face_configs_repeat_sizes(tmp_path: Path) -> None:
    folder = small_clip.write_hugging_face(tmp_path, small_clip.hugging_face())
    expected = load_weights(folder).hash
    config = json.loads((folder / "config.json").read_text())
    config |= {"vision_config_dict": config.pop("vision_config"), "vision_config": {"hidden_size": 1}}
    config |= {"text_config_dict": None}
    (folder / "config.json").write_text(json.dumps(config))
    assert load_weights(folder).hash == expected


@pytest.mark.parametrize("content", ["", "[]", "{", "\ud800"])
def test_damaged_configs(folder: Path, content: str) -> None:
    (folder / "open_clip_config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(WeightsError, match=r"open_clip_config.json in its folder"):
        load_weights(folder)


@pytest.mark.parametrize("part", [{"mean": [1, 2]}, {"std": [0, 1, 1]}, {"mean": "grey"}, {"interpolation": "lanczos"}])
def test_damaged_preprocessing(folder: Path, part: dict[str, Any]) -> None:
    config = small_clip.open_clip_config()
    config["preprocess_cfg"] |= part
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"open_clip_config.json: (mean|interpolation)"):
        load_weights(folder)
