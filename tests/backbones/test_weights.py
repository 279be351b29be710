"""Finding, reading and checking weights: every way they can be given, and every way they can be wrong."""

import hashlib
import json
import pickle
import socket
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import small_clip
from anomalens.backbones import registry as backbones
from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones import weights
from anomalens.backbones.checks import fingerprint
from anomalens.backbones.registry import WeightsFile
from anomalens.backbones.weights import load_weights
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import PixelFormat


@pytest.fixture
def state() -> dict[str, Tensor]:
    """Canonical weights of the small CLIP; change the dictionary, not the tensors."""
    return small_clip.state()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder in open_clip's layout."""
    return small_clip.write_open_clip(tmp_path / "weights", small_clip.state(), "quick_gelu")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing in this file open a connection."""

    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def resave(folder: Path, state: dict[str, Tensor]) -> Path:
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "open_clip_model.safetensors")
    return folder


# --------------------------------------------------------------------------------------------- ways to give weights
def test_facts_travel_with_the_weights(folder: Path) -> None:
    loaded = load_weights(folder)
    assert loaded.name == "weights"
    assert str(folder) in loaded.source
    assert loaded.pixels == PixelFormat((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear")
    assert loaded.image_size == small_clip.IMAGE
    assert len(loaded.hash) == 64


def test_a_file_and_its_folder_are_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_file = load_weights(folder / "open_clip_model.safetensors")
    assert by_file.hash == load_weights(str(folder)).hash
    monkeypatch.chdir(folder.parent)
    assert load_weights("./weights").hash == by_file.hash
    assert load_weights("weights").name == "weights"


def test_any_single_file_in_a_folder_will_do(tmp_path: Path, state: dict[str, Tensor]) -> None:
    small_clip.write_openai(tmp_path / "my own.pt", state)
    assert load_weights(tmp_path).config.vision.width == small_clip.WIDTH


def test_sharded_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    small_clip.write_hugging_face(tmp_path, small_clip.hugging_face())
    whole = load_weights(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    names = sorted(tensors)
    table: dict[str, str] = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, tmp_path / shard)
        table |= dict.fromkeys(part, shard)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": table}))
    assert load_weights(tmp_path).hash == whole.hash
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"part 2 of 2, model-00002-of-00002.safetensors, is missing"):
        load_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    with pytest.raises(WeightsError, match="no file of weights in its folder"):
        load_weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(WeightsError, match="not an index"):
        load_weights(tmp_path)


def test_training_checkpoints_keep_weights_beside_other_things(tmp_path: Path, state: dict[str, Tensor]) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps(small_clip.open_clip_config()))
    parallel = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 3, "state_dict": parallel}, tmp_path / "epoch_3.pt")
    plain = load_weights(small_clip.write_open_clip(tmp_path / "plain", state, "quick_gelu"))
    assert load_weights(tmp_path / "epoch_3.pt").hash == plain.hash


def test_a_bare_state_dict_is_taken_for_openais_with_a_warning(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "bare.pt")
    with pytest.warns(UserWarning, match=r"no open_clip_config.json in its folder.*quick_gelu"):
        loaded = load_weights(tmp_path / "bare.pt")
    assert loaded.config.activation == "quick_gelu"
    assert loaded.config.vision.heads == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(small_clip.write_openai(tmp_path / "theirs.pt", state))


def test_a_bare_state_dict_of_unique_sizes_has_its_activation(
    tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state, tmp_path / "bare.pt")
    config = layouts.infer_config(state, "gelu")
    known = replace(backbones.find("ViT-B-16-plus-240"), name="small", config=config)
    monkeypatch.setattr(weights, "BACKBONES", {"small": known})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_weights(tmp_path / "bare.pt").config == config


# ------------------------------------------------------------------------------------------------ names of the table
@pytest.fixture
def known(tmp_path: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the entry ViT-B-32 stand for the small CLIP and return its folder, with its file in it."""
    home = tmp_path / "cache" / "ViT-B-32"
    home.mkdir(parents=True)
    torch.save(state, home / "pytorch_model.bin")
    raw = (home / "pytorch_model.bin").read_bytes()
    entry = replace(
        backbones.find("ViT-B-32"),
        config=layouts.infer_config(state, "quick_gelu"),
        files=(WeightsFile("pytorch_model.bin", len(raw), hashlib.sha256(raw).hexdigest()),),
        pixels=PixelFormat((0.3, 0.3, 0.3), (0.2, 0.2, 0.2)),
    )
    table = {**backbones.BACKBONES, "ViT-B-32": entry}
    for module in (backbones, weights):
        monkeypatch.setattr(module, "BACKBONES", table)
    return home


def test_a_named_file_in_its_folder(known: Path) -> None:
    loaded = load_weights("vit-b/32", cache_dir=known.parent)
    assert loaded.name == "ViT-B-32"
    assert loaded.pixels.mean == (0.3, 0.3, 0.3)
    assert loaded.hash == load_weights("ViT-B-32", offline=True, cache_dir=known.parent).hash


def test_sha256_is_checked_where_known(known: Path, state: dict[str, Tensor]) -> None:
    state["visual.proj"] = state["visual.proj"] + 1
    torch.save(state, known / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model.bin: sha256 .*expected .*delete it and get it again"):
        load_weights("ViT-B-32", cache_dir=known.parent)


def test_missing_named_weights_say_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError) as caught:
        load_weights("ViT-L/14@336px", offline=True, cache_dir=tmp_path)
    message = str(caught.value)
    assert "offline nothing is fetched" in message
    assert "pytorch_model.bin (1.71 GB" in message
    assert "openai/clip-vit-large-patch14-336" in message
    assert str(tmp_path / "ViT-L-14-336") in message
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsError, match="offline nothing is fetched"):
        load_weights("ViT-L/14@336px", cache_dir=tmp_path)
    with pytest.raises(WeightsError, match=r"org/name is not in the cache.*offline"):
        load_weights("org/name", cache_dir=tmp_path)


def test_names_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ViT-Z", "ViT-L/15", "", "  ", "a b"):
        with pytest.raises(ConfigError, match=r"known by name: .*ViT-B-32"):
            load_weights(name)
    for path in ("missing.safetensors", "./nothing", str(tmp_path / "nothing"), Path("nothing")):
        with pytest.raises(WeightsError, match="no such file or folder"):
            load_weights(path)


# -------------------------------------------------------------------------------------------------------- bad files
@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_cut_off_files(tmp_path: Path, state: dict[str, Tensor], suffix: str, kept: float) -> None:
    path = tmp_path / f"cut.{suffix}"
    if suffix == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(WeightsError, match=rf"cut.{suffix}.*get (it|the file) again") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "bin"])
@pytest.mark.parametrize(
    "content", [b"<!doctype html><title>404</title>", b"\0" * 5000, b"{" * 5000, bytes(range(256)) * 20]
)
def test_files_that_are_something_else(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"other.{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="other"):
        load_weights(path)


def test_a_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605157884\n")
    with pytest.raises(WeightsError, match="git lfs pull"):
        load_weights(path)


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "run")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path: Path, state: dict[str, Tensor], legacy: bool) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "ran"
    content = {**state, "extra": Trap(target)}
    if legacy:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match="not unpickled, because that can run code") as caught:
        load_weights(path)
    assert "weights_only" not in str(caught.value), "torch's advice to unpickle everything is not passed on"
    assert not target.exists()


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")
def test_a_torchscript_archive_says_how_to_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(str(path))
    with pytest.raises(WeightsError, match=r"TorchScript archive(.|\n)*save_file(.|\n)*not the published one"):
        load_weights(path)
    entry = replace(backbones.find("ViT-B-32"), archive=(path.name, hashlib.sha256(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(weights, "BACKBONES", {"ViT-B-32": entry})
    with pytest.raises(WeightsError, match=r"its sha256 is the published one"):
        load_weights(path)
    with pytest.raises(WeightsError, match="TorchScript"):
        load_weights(path.rename(tmp_path / "other.pt"))


def test_folders_without_one_file_of_weights(tmp_path: Path, state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="it holds none"):
        load_weights(tmp_path)
    for name in ("a.pt", "b.pt"):
        small_clip.write_openai(tmp_path / name, state)
    with pytest.raises(WeightsError, match=r"it holds a.pt, b.pt; give one of them"):
        load_weights(tmp_path)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="no dictionary of tensors"):
        load_weights(tmp_path / "list.pt")


# ------------------------------------------------------------------------------------------------------ bad content
def test_missing_and_unexpected_tensors_are_named_and_counted(folder: Path, state: dict[str, Tensor]) -> None:
    for name in [name for name in state if name.startswith("visual.transformer.resblocks.1.")]:
        del state[name]
    state["visual.extra"] = torch.zeros(2)
    with pytest.raises(WeightsError) as caught:
        load_weights(resave(folder, state))
    message = str(caught.value)
    assert "missing visual.transformer.resblocks.1.attn.in_proj_bias," in message
    assert "(12 in all)" in message
    assert "unexpected visual.extra" in message


def test_a_wrong_shape_is_named(folder: Path, state: dict[str, Tensor]) -> None:
    state["visual.proj"] = torch.zeros(small_clip.WIDTH, 7)
    with pytest.raises(WeightsError, match=r"visual.proj: expected shape \[128, 32\], found \[128, 7\]"):
        load_weights(resave(folder, state))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_named(folder: Path, state: dict[str, Tensor], value: float) -> None:
    for name in ("ln_final.bias", "visual.conv1.weight"):
        state[name] = state[name].clone()
        state[name].view(-1)[3] = value
    with pytest.raises(WeightsError, match=r"NaN or infinity: tensors ln_final.bias, visual.conv1.weight"):
        load_weights(resave(folder, state))


def test_large_finite_weights_pass(folder: Path, state: dict[str, Tensor]) -> None:
    state["ln_final.bias"] = torch.full_like(state["ln_final.bias"], 3e38)  # their sum overflows, they do not
    load_weights(resave(folder, state))


def test_quantised_weights_are_refused(folder: Path, state: dict[str, Tensor]) -> None:
    state["visual.proj"] = state["visual.proj"].to(torch.int8)
    with pytest.raises(WeightsError, match=r"not floating point visual.proj"):
        load_weights(resave(folder, state))


def test_an_image_tower_alone(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({k: v for k, v in state.items() if k.startswith("visual.")}, tmp_path / "visual.pt")
    with pytest.raises(WeightsError, match=r"no tensor 'token_embedding.weight': not the weights of a CLIP with both"):
        load_weights(tmp_path / "visual.pt")


def test_widths_that_do_not_tell_the_heads(tmp_path: Path) -> None:
    torch.save(
        {
            "visual.conv1.weight": torch.zeros(96, 3, 8, 8),
            "visual.positional_embedding": torch.zeros(10, 96),
            "visual.transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(384, 96),
            "token_embedding.weight": torch.zeros(9, 64),
        },
        tmp_path / "odd.pt",
    )
    with pytest.raises(WeightsError, match="widths 96 and 64 do not tell the number of heads; put the weights' config"):
        load_weights(tmp_path / "odd.pt")


# ------------------------------------------------------------------------------------------------------------- hash
def test_the_hash_sees_every_weight_and_the_config(state: dict[str, Tensor]) -> None:
    config = layouts.infer_config(state, "quick_gelu")
    first = fingerprint(state, config)
    assert fingerprint(dict(reversed(state.items())), config) == first
    assert fingerprint(state, replace(config, activation="gelu")) != first
    swapped = {**state, "visual.ln_pre.bias": state["visual.ln_post.bias"]}
    assert fingerprint(swapped, config) != first
    nudged = {**state, "logit_scale": state["logit_scale"] + 1e-4}
    assert fingerprint(nudged, config) != first
