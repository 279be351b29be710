"""List the weights known by name: sizes, files, hashes, preprocessing, activation, licence, source.

The facts stand in `backbones.toml` and `image_towers.toml`; the shipped weights describe themselves.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from anomalens.backbones.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat


@dataclass(frozen=True)
class WeightsFile:
    """Describe a published file."""

    name: str
    # Size in bytes; 4 bytes a parameter where a source states none.
    bytes: int
    # sha256 of the content in lower-case hex, or its first digits; None: not known.
    sha256: str | None = None

    @property
    def size(self) -> str:
        """Return the size as text: "1.71 GB"."""
        return f"{self.bytes / 1e9:.2f} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:.0f} MB"


@dataclass(frozen=True, kw_only=True)
class Published:
    """Describe a set of published weights and where its files are."""

    name: str
    # The first of them that exists is read; the hub repository has the very first.
    files: tuple[WeightsFile, ...]
    licence: str
    # Publisher and training data.
    source: str
    # Hub repository of files[0]; None: nothing is fetched.
    hub: str | None = None
    # Name and sha256 of the publisher's TorchScript archive, which is not read.
    archive: tuple[str, str] | None = None
    # Further names; spelling ("/", "@", "px", case) never matters.
    aliases: tuple[str, ...] = ()
    # The backbone whose files these are, where only the activation differs.
    same_files_as: str | None = None

    @property
    def bytes(self) -> int:
        """Return the size of the file that is read."""
        return self.files[0].bytes


@dataclass(frozen=True, kw_only=True)
class Backbone(Published):
    """Describe a dual encoder and all that must travel with it."""

    config: ClipConfig
    pixels: PixelFormat = CLIP_PIXELS

    @property
    def patch(self) -> int:
        """Return the pixels a side of a patch."""
        return self.config.vision.patch

    @property
    def image_size(self) -> int:
        """Return the native side in pixels."""
        return self.config.vision.image_size


@dataclass(frozen=True, kw_only=True)
class ImageTower(Published):
    """Describe a tower that knows images and no words (`dino.py`)."""

    # Pixels a side of a patch, and the native side of images.
    patch: int
    image_size: int


def _tower(sizes: list[int]) -> tuple[int, int, int]:
    """Return width, layers and heads of [width, layers] or [width, layers, heads]; unless given, heads are 64 wide."""
    width, layers, *heads = sizes
    return width, layers, heads[0] if heads else width // 64


def _published(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts of an entry in the types of `Published`."""
    listed = {key: tuple(facts[key]) for key in ("archive", "aliases") if key in facts}
    return facts | listed | {"files": tuple(WeightsFile(*file) for file in facts["files"])}


def _preset(name: str, facts: dict[str, Any]) -> Backbone:
    """Return the backbone of an entry of backbones.toml."""
    config = ClipConfig(
        VisionConfig(facts.pop("image_size"), facts.pop("patch"), *_tower(facts.pop("vision"))),
        TextConfig(*_tower(facts.pop("text"))),
        facts.pop("joint"),
        facts.pop("activation", "quick_gelu"),
    )
    if "mean" in facts:
        facts["pixels"] = PixelFormat.parse(facts.pop("mean"), facts.pop("std"), "bicubic")
    return Backbone(name=name, config=config, **_published(facts))


def _facts(file: str) -> dict[str, Any]:
    return tomllib.loads(files("anomalens.backbones").joinpath(file).read_text(encoding="utf-8"))


def _presets() -> tuple[Backbone, ...]:
    """Return all backbones of backbones.toml; a variant takes all but its activation from an entry before it."""
    presets: dict[str, Backbone] = {}
    for name, facts in _facts("backbones.toml").items():
        if "same_files_as" in facts:
            base = presets[facts["same_files_as"]]
            config = replace(base.config, activation=facts["activation"])
            presets[name] = replace(base, name=name, config=config, aliases=(), same_files_as=base.name)
        else:
            presets[name] = _preset(name, facts)
    return tuple(presets.values())


_PRESETS = _presets()


def _bundled() -> tuple[Backbone, ...]:
    """Return the shipped backbone, which describes itself, or nothing where its file is missing or damaged."""
    try:
        info = read_bundle_info(BUNDLED_FILE)
    except WeightsError:
        return ()
    entry = Backbone(
        name="bundled",
        config=info.config,
        files=(WeightsFile(BUNDLED_FILE.name, BUNDLED_FILE.stat().st_size),),
        licence=info.licence,
        source=f"shipped with anomalens, version {info.version}",
        pixels=info.pixels,
    )
    return (entry,)


BACKBONES: MappingProxyType[str, Backbone] = MappingProxyType({entry.name: entry for entry in (*_bundled(), *_PRESETS)})
"""The dual encoders, by name."""

IMAGE_TOWERS: MappingProxyType[str, ImageTower] = MappingProxyType(
    {name: ImageTower(name=name, **_published(facts)) for name, facts in _facts("image_towers.toml").items()}
)
"""The towers that know images alone, by name."""


def normalise(name: str) -> str:
    """Return the spelling by which names are compared: "ViT-L/14@336px" -> "vit-l-14-336"."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower().replace("+", "-plus-")).strip("-")
    return re.sub(r"(?<=\d)px\b", "", plain)


@cache
def _spellings() -> dict[str, str]:
    names = {normalise(alias): entry.name for entry in _PRESETS for alias in (entry.name, *entry.aliases)}
    return names | {"bundled": "bundled"}


def canonical_name(name: str) -> str | None:
    """Return the table's name of what a user wrote ("vit-l/14@336" -> "ViT-L-14-336"); None if it is in no table."""
    if _is_path(name):
        return None
    spelled = normalise(name)
    return _spellings().get(spelled) or _spellings().get(f"vit-{spelled}")


def _is_path(name: str) -> bool:
    return name.startswith((".", "/", "~", "\\"))


def find_image_tower(name: str) -> ImageTower | None:
    """Return the image tower of a name in any spelling ("DINOv2 small") or of a hub id; None if it is in no table."""
    if _is_path(name):
        return None
    spelled = normalise(name)
    return next((tower for tower in IMAGE_TOWERS.values() if spelled == tower.name or name == tower.hub), None)


def find(name: str) -> Backbone:
    """Return the dual encoder of a name in any spelling.

    Raises:
        ConfigError: there is no such name; the message lists those that exist.
        WeightsError: the shipped weights are missing from the installation, or damaged.
    """
    canonical = canonical_name(name)
    if canonical is None:
        raise unknown(name)
    if canonical not in BACKBONES:
        read_bundle_info(BUNDLED_FILE)  # raises the error that says what is wrong with the file
    return BACKBONES[canonical]


def unknown(name: str) -> ConfigError:
    """Return the error for a name that is in no table."""
    return ConfigError(
        f"no backbone is called {name!r}; known by name: {', '.join([*BACKBONES, *IMAGE_TOWERS])}; "
        "a hub id (hf-hub:org/name), a folder or a file of weights will do as well"
    )


def list_backbones() -> list[Backbone | ImageTower]:
    """Return the weights known by name, each with its facts: dual encoders, then towers that know images alone."""
    return [*BACKBONES.values(), *IMAGE_TOWERS.values()]
