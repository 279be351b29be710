"""List the weights known by name: sizes, files, hashes, preprocessing, activation, licence, source.

Facts from the open_clip registry (3.3.0), the OpenAI repository and the model pages named in `source`. A sha256 stands
only where independent public records agree on it.
"""

import re
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from anomalens.backbones.bundle import BUNDLED_FILE, read_bundle_info
from anomalens.backbones.config import Activation, ClipConfig, TextConfig, VisionConfig
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat


@dataclass(frozen=True)
class WeightsFile:
    """Describe a published file."""

    name: str
    # Size in bytes; exact where the sha256 is known, else 4 bytes a parameter.
    bytes: int
    # sha256 of the content in lower-case hex, or its first digits; None: not known.
    sha256: str | None = None

    @property
    def size(self) -> str:
        """Return the size as text: "1.71 GB"."""
        return f"{self.bytes / 1e9:.2f} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:.0f} MB"


@dataclass(frozen=True)
class Backbone:
    """Describe a set of weights and all that must travel with it."""

    name: str
    config: ClipConfig
    # The first of them that exists is read; the hub repository has the very first.
    files: tuple[WeightsFile, ...]
    licence: str
    # Publisher and training data.
    source: str
    # Hub repository of files[0]; None: nothing is fetched.
    hub: str | None = None
    # Name and sha256 of the publisher's TorchScript archive, which is not read.
    archive: tuple[str, str] | None = None
    pixels: PixelFormat = CLIP_PIXELS
    # Further names; spelling ("/", "@", "px", case) never matters.
    aliases: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Return the size of the file that is read."""
        return self.files[0].bytes


def _config(
    image_size: int,
    patch: int,
    vision: tuple[int, int],
    text: tuple[int, int],
    joint: int,
    activation: Activation = "quick_gelu",
) -> ClipConfig:
    """Return sizes from (width, layers) of both towers; every head is 64 wide."""
    return ClipConfig(
        VisionConfig(image_size, patch, vision[0], vision[1], heads=vision[0] // 64),
        TextConfig(text[0], text[1], heads=text[0] // 64),
        joint,
        activation,
    )


# OpenAI's: Radford et al. 2021, arXiv 2103.00020. LAION-400M: Ilharco et al. 2021, open_clip. TinyCLIP: Wu et al. 2023.
_PRESETS = (
    Backbone(
        "ViT-B-32",
        _config(224, 32, (768, 12), (512, 12), 512),
        (
            WeightsFile(
                "pytorch_model.bin", 605_247_071, "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f"
            ),
        ),
        licence="MIT",
        source="OpenAI",
        hub="openai/clip-vit-base-patch32",
        archive=("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
    ),
    Backbone(
        "ViT-B-16",
        _config(224, 16, (768, 12), (512, 12), 512),
        (
            WeightsFile(
                "pytorch_model.bin", 598_641_023, "ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0"
            ),
        ),
        licence="MIT",
        source="OpenAI",
        hub="openai/clip-vit-base-patch16",
        archive=("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
    ),
    Backbone(
        "ViT-L-14",
        _config(224, 14, (1024, 24), (768, 12), 768),
        (
            WeightsFile(
                "model.safetensors", 1_710_540_580, "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb"
            ),
        ),
        licence="MIT",
        source="OpenAI",
        hub="openai/clip-vit-large-patch14",
        archive=("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    ),
    Backbone(
        "ViT-L-14-336",
        _config(336, 14, (1024, 24), (768, 12), 768),
        (
            WeightsFile(
                "pytorch_model.bin", 1_711_974_081, "c6032c2e0caae3dc2d4fba35535fa6307dbb49df59c7e182b1bc4b3329b81801"
            ),
        ),
        licence="MIT",
        source="OpenAI",
        hub="openai/clip-vit-large-patch14-336",
        archive=("ViT-L-14-336px.pt", "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02"),
    ),
    Backbone(
        "ViT-B-16-plus-240",
        _config(240, 16, (896, 12), (640, 12), 640, "gelu"),
        (
            WeightsFile("open_clip_model.safetensors", 833_509_380),
            # Epoch 32, where the hub repository (to which open_clip's registry sends both) has epoch 31. The release
            # file's name ends in the first digits of its sha256.
            WeightsFile("vit_b_16_plus_240-laion400m_e32-699c4b84.pt", 833_509_380, "699c4b84"),
        ),
        licence="MIT",
        source="open_clip, LAION-400M",
        hub="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
    ),
    Backbone(
        "TinyCLIP-ViT-8M-16",
        _config(224, 16, (256, 10), (256, 3), 512, "gelu"),
        (WeightsFile("model.safetensors", 93_784_068),),
        licence="MIT",
        source="TinyCLIP, YFCC-15M",
        hub="wkcn/TinyCLIP-ViT-8M-16-Text-3M-YFCC15M",
        aliases=("tinyclip", "TinyCLIP-ViT-8M-16-Text-3M-YFCC15M"),
    ),
    Backbone(
        "TinyCLIP-ViT-39M-16",
        _config(224, 16, (512, 12), (512, 6), 512, "gelu"),
        (WeightsFile("model.safetensors", 332_404_740),),
        licence="MIT",
        source="TinyCLIP, YFCC-15M",
        hub="wkcn/TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",
        aliases=("TinyCLIP-ViT-39M-16-Text-19M-YFCC15M",),
    ),
)


def _bundled() -> tuple[Backbone, ...]:
    """Return the shipped backbone, which describes itself, or nothing where its file is missing or damaged."""
    try:
        info = read_bundle_info(BUNDLED_FILE)
    except WeightsError:
        return ()
    entry = Backbone(
        "bundled",
        info.config,
        (WeightsFile(BUNDLED_FILE.name, BUNDLED_FILE.stat().st_size),),
        licence=info.licence,
        source=f"shipped with anomalens, version {info.version}",
        pixels=info.pixels,
    )
    return (entry,)


BACKBONES: MappingProxyType[str, Backbone] = MappingProxyType({entry.name: entry for entry in (*_bundled(), *_PRESETS)})


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
    if name.startswith((".", "/", "~", "\\")):  # a path, whatever follows
        return None
    spelled = normalise(name)
    return _spellings().get(spelled) or _spellings().get(f"vit-{spelled}")


def find(name: str) -> Backbone:
    """Return the backbone of a name in any spelling.

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
        f"no backbone is called {name!r}; known by name: {', '.join(BACKBONES)}; "
        "a hub id (hf-hub:org/name), a folder or a file of weights will do as well"
    )


def list_backbones() -> list[Backbone]:
    """Return the weights known by name, each with its facts."""
    return list(BACKBONES.values())
