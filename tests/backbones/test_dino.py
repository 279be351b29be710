"""Our DINOv2 and DINOv3 against `transformers` on random weights, and the guide made from it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.dino import IMAGENET_MEAN, IMAGENET_STD, Dino, DinoGuide, is_dino, load_dino
from anomalens.backbones.tower import Clip
from anomalens.errors import WeightsError
from anomalens.images.normalisation import CLIP_MEAN, CLIP_STD, PixelFormat, Triple
from anomalens.methods import base
from anomalens.methods.crane import Crane

OTHER: tuple[Triple, Triple] = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
"""Mean and std of a backbone that is not OpenAI's."""


SIZES: dict[str, Any] = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "image_size": 70,
    "patch_size": 14,
}


def shaken(model: Any) -> Any:
    """Give a model random weights, in eval mode."""
    model.eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():  # nothing may stay at 0 or 1, layer scales least of all
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def reference() -> Any:
    torch.manual_seed(0)
    return shaken(Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4)))


@pytest.fixture
def folder(reference: Any, tmp_path: Path) -> Path:
    reference.save_pretrained(tmp_path)
    return tmp_path


def normalised(rgb: Tensor, mean: Triple, std: Triple) -> Tensor:
    return (rgb - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


def pixels(side: int) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("side", [70, 126, 56])
def test_features_equal_transformers(reference: Any, folder: Path, side: int) -> None:
    """At the native size and at others, where positions are interpolated; from the files it saves."""
    with torch.no_grad():
        expected = reference(pixels(side)).last_hidden_state[:, 5:]
        actual = load_dino(folder)(pixels(side))
    assert actual.shape == (2, (side // 14) ** 2, 96)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("side", [70, 126, 56])
def test_without_registers_and_with_a_gated_feed_forward(tmp_path: Path, side: int, gated: bool) -> None:
    torch.manual_seed(0)
    plain = shaken(Dinov2Model(Dinov2Config(**SIZES, use_swiglu_ffn=gated)))
    plain.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = plain(pixels(side)).last_hidden_state[:, 1:]
        actual = load_dino(tmp_path)(pixels(side))
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def dinov3(gated: bool = False) -> Any:
    """Return DINOv3 with random weights: patches of 16 pixels, as it has everywhere, and four registers."""
    torch.manual_seed(0)
    sizes = SIZES | {"patch_size": 16, "intermediate_size": 256 if gated else 384, "num_register_tokens": 4}
    return shaken(DINOv3ViTModel(DINOv3ViTConfig(**sizes, use_gated_mlp=gated, hidden_act="silu" if gated else "gelu")))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 112), (224, 224)])
def test_dinov3_equals_transformers(tmp_path: Path, height: int, width: int, gated: bool) -> None:
    model = dinov3(gated)
    model.save_pretrained(tmp_path)
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(2))
    network = load_dino(tmp_path)
    with torch.no_grad():
        output = model(image, output_hidden_states=True)
        torch.testing.assert_close(network(image), output.last_hidden_state[:, 5:], atol=1e-5, rtol=1e-5)
        (level,) = network.levels(image, (2,))
    assert level.shape == (2, height // 16, width // 16, 96)
    torch.testing.assert_close(level.flatten(1, 2), output.hidden_states[2][:, 5:], atol=1e-5, rtol=1e-5)


def test_dinov3_loads_with_the_names_of_the_published_files(tmp_path: Path) -> None:
    """They have no `model.` before their layers, whatever `transformers` calls them today."""
    model = dinov3()
    state = {name.removeprefix("model."): value for name, value in model.state_dict().items()}
    assert "layer.0.attention.k_proj.weight" in state
    assert "layer.0.attention.k_proj.bias" not in state
    save_file(state, tmp_path / "model.safetensors")
    assert is_dino(tmp_path / "model.safetensors")
    own = Dino.from_state_dict(dict(model.state_dict()), heads=3)
    bare = Dino.from_state_dict(state, heads=3)
    with torch.no_grad():
        assert torch.equal(own(pixels(64)), bare(pixels(64)))


@pytest.mark.parametrize("name", ["dinov2-small", "dinov2-with-registers-large", "dinov3-base"])
def test_by_name_from_the_users_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANOMALENS_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=rf"'{name}' are not on this machine.*put model.safetensors \(\d"):
        load_dino(name, offline=True)
    model = dinov3() if "v3" in name else shaken(Dinov2Model(Dinov2Config(**SIZES)))
    model.save_pretrained(tmp_path / "weights" / name)
    assert is_dino(name)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = model(image).last_hidden_state[:, -((224 // load_dino(name).patch) ** 2) :]
        torch.testing.assert_close(load_dino(name, offline=True)(image), expected, atol=1e-5, rtol=1e-5)


def test_levels_are_the_hidden_states_and_the_last_is_normed(reference: Any, folder: Path) -> None:
    wide = torch.randn(2, 3, 56, 84, generator=torch.Generator().manual_seed(2))
    network = load_dino(folder)
    with torch.no_grad():
        output = reference(wide, output_hidden_states=True)
        levels = network.levels(wide, (1, 3, 2, 1))
        early = network.levels(wide, (2,))
    expected = [output.hidden_states[1], output.last_hidden_state, output.hidden_states[2], output.hidden_states[1]]
    for level, states in zip(levels, expected, strict=True):
        assert level.shape == (2, 4, 6, 96)
        torch.testing.assert_close(level.flatten(1, 2), states[:, 5:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(early[0], levels[2])


def test_it_is_known_without_reading_its_tensors(folder: Path) -> None:
    """By its config, without one by the names of its tensors, on the hub by its name."""
    file = folder / "model.safetensors"
    assert is_dino(folder)
    assert is_dino(str(file))
    (folder / "config.json").unlink()
    assert is_dino(file)
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    assert not is_dino(folder)
    assert is_dino("facebook/dinov2-with-registers-base")
    assert is_dino("facebook/dinov2-small")
    assert is_dino("hf-hub:facebook/dinov2-giant")
    assert is_dino("facebook/dinov3-vits16-pretrain-lvd1689m")
    assert not is_dino("openai/clip-vit-base-patch32")
    assert not is_dino("bundled")
    (folder / "config.json").unlink()
    (folder / "broken.safetensors").write_bytes(b"no tensors")
    assert not is_dino(folder / "broken.safetensors")


def test_both_spellings_of_the_attention_load(reference: Any) -> None:
    state = dict(reference.state_dict())
    older, newer = {}, {}
    for name, tensor in state.items():
        for old, new in (("attention.query", "q_proj"), ("attention.key", "k_proj"), ("attention.value", "v_proj")):
            name = name.replace(f"attention.{old}", f"attention.{new}")
        name = name.replace("attention.output.dense", "attention.o_proj")
        newer[name] = tensor
        for old, new in (("attention.query", "q_proj"), ("attention.key", "k_proj"), ("attention.value", "v_proj")):
            name = name.replace(f"attention.{new}", f"attention.{old}")
        older[name.replace("attention.o_proj", "attention.output.dense")] = tensor
    assert older.keys() != newer.keys()
    first, second = (Dino.from_state_dict(s, heads=3) for s in (older, newer))
    torch.testing.assert_close(first(pixels(56)), second(pixels(56)), atol=0, rtol=0)


def test_it_is_frozen(folder: Path) -> None:
    assert not any(p.requires_grad for p in load_dino(folder / "model.safetensors").parameters())


def test_other_weights_are_refused(tmp_path: Path) -> None:
    save_file({"visual.proj": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3}))
    with pytest.raises(WeightsError, match="dinov2-with-registers-base"):
        load_dino(tmp_path)


def test_a_damaged_config_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config.json in its folder cannot be read"):
        load_dino(folder)


def test_a_missing_network_says_so_offline(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="offline"):
        load_dino("facebook/dinov2-with-registers-base", offline=True)


def test_the_guide_sees_imagenet_pixels_on_the_backbones_grid(folder: Path) -> None:
    network = load_dino(folder)
    rgb = torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(3))

    expected = network(normalised(rgb, IMAGENET_MEAN, IMAGENET_STD))
    for mean, std in ((CLIP_MEAN, CLIP_STD), OTHER):
        features = DinoGuide(network, 14).features(normalised(rgb, mean, std), mean, std)
        torch.testing.assert_close(features, expected)
    assert DinoGuide(network, 16).features(torch.zeros(1, 3, 64, 80), *OTHER).shape == (1, 20, 96)


def test_crane_plus_guides_by_the_backbones_own_pixels(folder: Path) -> None:
    """The guide sees the same photograph on backbones that normalise it differently."""
    torch.manual_seed(0)
    config = ClipConfig(VisionConfig(64, 16, 64, 4, 1), TextConfig(64, 3, 1), 64)
    method = base.create("crane+", config, guide=str(folder)).eval()
    assert isinstance(method, Crane)
    assert method.guide is not None
    assert not any("guide" in name for name in method.state_dict())
    rgb = torch.rand(1, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    guide, guided = method.guide, list[Tensor]()

    class Recorded:
        def features(self, pixels: Tensor, mean: Triple, std: Triple) -> Tensor:
            guided.append(guide.features(pixels, mean, std))
            return guided[-1]

    method.guide = Recorded()
    state = Clip(config).canonical_state_dict()
    for mean, std in ((CLIP_MEAN, CLIP_STD), OTHER):
        clip = Clip.from_state_dict(config, state, PixelFormat(mean, std))
        dense = method.encode(clip, normalised(rgb, mean, std)).dense
        assert [taps[0].shape for taps in dense] == [(1, 20, 64)] * 2
    torch.testing.assert_close(guided[0], guided[1])
