"""The table of known weights: names in any spelling, sizes that fit the towers, files with sizes and hashes."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from anomalens.backbones.hub import is_available
from anomalens.backbones.registry import BACKBONES, IMAGE_TOWERS, canonical_name, find, find_image_tower
from anomalens.backbones.tower import Clip
from anomalens.errors import ConfigError

PRESETS = [name for name in BACKBONES if name != "bundled"]


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("ViT-L/14@336px", "ViT-L-14-336"),
        ("vit-l/14@336", "ViT-L-14-336"),
        ("ViT-L-14-336", "ViT-L-14-336"),
        ("vit_l_14_336", "ViT-L-14-336"),
        ("L/14@336", "ViT-L-14-336"),
        ("ViT-L/14@336px-gelu", "ViT-L-14-336-gelu"),
        ("ViT-L/14", "ViT-L-14"),
        ("vit-b/32", "ViT-B-32"),
        ("B/16", "ViT-B-16"),
        ("ViT-B-16-plus-240", "ViT-B-16-plus-240"),
        ("b/16+240", "ViT-B-16-plus-240"),
        ("tinyclip", "TinyCLIP-ViT-8M-16"),
        ("TinyCLIP-ViT-39M-16-Text-19M-YFCC15M", "TinyCLIP-ViT-39M-16"),
        ("Bundled", "bundled"),
        ("ViT-H/14-laion2b", "ViT-H-14-laion2b"),
        ("metaclip ViT-L/14", "MetaCLIP-ViT-L-14"),
    ],
)
def test_spellings(spelling: str, name: str) -> None:
    assert canonical_name(spelling) == name


@pytest.mark.parametrize("other", ["ViT-L/15", "vit-b-32.pt", "./bundled", "~/ViT-B-32", "/ViT-B-32", "openai/x", ""])
def test_other_names(other: str) -> None:
    assert canonical_name(other) is None


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(ConfigError, match=r"'ViT-X'.*ViT-B-32, ViT-B-16, .*hub id") as caught:
        find("ViT-X")
    assert all(name in str(caught.value) for name in PRESETS)


def test_a_variant_differs_in_its_activation_alone() -> None:
    base, variant = find("ViT-L-14-336"), find("ViT-L-14-336-gelu")
    assert variant.config.activation == "gelu"
    config = replace(variant.config, activation="quick_gelu")
    assert replace(variant, name=base.name, config=config, aliases=base.aliases, same_files_as=None) == base


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_whole(name: str) -> None:
    backbone = find(name)
    assert backbone.hub
    assert backbone.licence in ("MIT", "CC-BY-NC-4.0")
    assert backbone.source
    for file in backbone.files:
        assert file.sha256 is None or (len(file.sha256) in (8, 64) and int(file.sha256, 16))
    assert backbone.archive is None or len(backbone.archive[1]) == 64
    with torch.device("meta"):
        floats = sum(value.numel() for value in Clip(backbone.config).parameters())
    # A file of float32 tensors is a little larger than its tensors; this ties the published size to our config.
    assert 0 <= backbone.bytes - 4 * floats < 250_000


@pytest.mark.parametrize("name", IMAGE_TOWERS)
def test_image_towers_are_whole(name: str) -> None:
    tower = IMAGE_TOWERS[name]
    assert (tower.licence, tower.patch) == (("DINOv3 licence", 16) if "v3" in name else ("Apache-2.0", 14))
    own: dict[str, Any] = dict(
        zip(
            ("hidden_size", "num_hidden_layers", "num_attention_heads"),
            {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16)}[name.rpartition("-")[2]],
            strict=True,
        )
    )
    with torch.device("meta"):
        if "v3" in name:
            wide = {"intermediate_size": 4 * own["hidden_size"], "num_register_tokens": 4}
            model: Any = DINOv3ViTModel(DINOv3ViTConfig(**own, **wide))
        elif "registers" in name:
            model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**own, image_size=518, patch_size=14))
        else:
            model = Dinov2Model(Dinov2Config(**own, image_size=518, patch_size=14))
    assert tower.bytes == 4 * sum(value.numel() for value in model.parameters())


def test_image_towers_are_found_by_name_and_hub_id() -> None:
    tower = IMAGE_TOWERS["dinov2-with-registers-base"]
    for name in ("dinov2-with-registers-base", "DINOv2 with registers/base", "facebook/dinov2-with-registers-base"):
        assert find_image_tower(name) is tower
    for other in ("./dinov2-small", "dinov2", "facebook/dinov2-giant", "bundled"):
        assert find_image_tower(other) is None
    assert not set(IMAGE_TOWERS) & set(BACKBONES)


def test_presets_cover_the_papers() -> None:
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-B-16-plus-240"} <= set(BACKBONES)
    assert find("ViT-L-14-336").config.vision.image_size == 336
    assert find("ViT-B-16-plus-240").config.activation == "gelu"
    assert find("ViT-B-16").config.activation == "quick_gelu"


def test_availability_is_asked_of_the_folder_alone(tmp_path: Path) -> None:
    assert not is_available("ViT-B-32", tmp_path)
    (tmp_path / "ViT-B-32").mkdir()
    (tmp_path / "ViT-B-32" / "pytorch_model.bin").write_bytes(b"x")
    assert is_available("vit-b/32", tmp_path)


def test_the_table_needs_no_torch() -> None:
    script = "import sys, anomalens.backbones.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
