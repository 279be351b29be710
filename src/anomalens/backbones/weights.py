"""Load weights from a name, a hub id, a folder or a file: locate, read, rename, check and hash them.

    spec -> file -> tensors -> canonical names -> config -> checks (names, shapes, finite) -> fingerprint

Nothing is unpickled but tensors, and the network is touched only where a name or hub id needs it and `offline` allows.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones.bundle import BUNDLED_FILE, FORMAT, BundleInfo, read_bundle_info
from anomalens.backbones.checks import check, fingerprint
from anomalens.backbones.config import Activation, ClipConfig
from anomalens.backbones.hub import HUB_PREFIX, cached_folder, fetch, fetch_repository
from anomalens.backbones.registry import BACKBONES, Backbone, canonical_name, find, unknown
from anomalens.backbones.tower import Clip
from anomalens.backbones.weight_files import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    PREPROCESSOR_CONFIG,
    SUFFIXES,
    TorchScriptError,
    pick_file,
    read_config,
    read_tensors,
)
from anomalens.errors import ConfigError, WeightsError
from anomalens.files import file_digest
from anomalens.images.normalisation import CLIP_PIXELS, PixelFormat


@dataclass(frozen=True)
class LoadedWeights:
    """Hold a set of weights, checked, in canonical names."""

    # The table's name, the hub id, or the name of the file or folder.
    name: str
    config: ClipConfig
    # OpenAI's names, float32, on the CPU.
    state: dict[str, Tensor]
    pixels: PixelFormat
    # Publisher and path, in words.
    source: str
    # sha256 over config and tensors: the same for the same weights in any layout.
    hash: str

    @property
    def image_size(self) -> int:
        """Return the native side in pixels."""
        return self.config.vision.image_size

    @property
    def is_bundled(self) -> bool:
        """Return whether these are the shipped weights, known by their hash, whatever their name, path and layout."""
        try:
            return self.hash == read_bundle_info(BUNDLED_FILE).sha256
        except WeightsError:
            return False

    def with_activation(self, activation: Activation) -> "LoadedWeights":
        """Return the same tensors for a tower of this activation: another network, whose hash is another."""
        if activation == self.config.activation:
            return self
        config = replace(self.config, activation=activation)
        name = f"{self.name.removesuffix('-gelu')}{'-gelu' if activation == 'gelu' else ''}"
        return replace(self, name=name, config=config, hash=fingerprint(self.state, config))

    def clip(self) -> Clip:
        """Build the dual encoder: frozen, float32, on the CPU."""
        return Clip.from_state_dict(self.config, self.state, self.pixels)


def load_weights(spec: str | Path, *, offline: bool = False, cache_dir: str | Path | None = None) -> LoadedWeights:
    """Load the weights of a dual encoder.

    Args:
        spec: a name from the table (`registry.py`), "hf-hub:org/name" or "org/name", a folder or a file. A name
            wins over a folder of the same name; write "./name" for the folder.
        offline: never touch the network; the variable HF_HUB_OFFLINE=1 does the same.
        cache_dir: the folder in which named weights are looked for and fetched ones kept; None takes the user's cache
            folder and the hub client's.

    Raises:
        ConfigError: no such name.
        WeightsError: missing, damaged, unfit or foreign weights; the message says what to do.
    """
    if isinstance(spec, str):
        if not spec.strip():
            raise unknown(spec)
        if canonical_name(spec) is not None:
            return _load_named(find(spec), offline, cache_dir)
        if spec.startswith(HUB_PREFIX):
            return _load_hub(spec.removeprefix(HUB_PREFIX), offline, cache_dir)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _load_file(pick_file(path), name=path.resolve().name, source=f"folder {path}")
    if path.exists():
        return _load_file(path, name=path.name, source=f"file {path}")
    if isinstance(spec, Path) or path.suffix in SUFFIXES or spec.startswith((".", "/", "~", "\\")):
        raise WeightsError(
            f"{spec}: no such file or folder; give weights as {' or '.join(SUFFIXES)}, or one of {', '.join(BACKBONES)}"
        )
    # "ViT-L/15" is a misspelled name, not a repository to ask the network for.
    if re.fullmatch(r"[\w.-]+/[\w.-]+", spec) and not re.match(r"(?i)vit[-_]?[a-z]/", spec):
        return _load_hub(spec, offline, cache_dir)
    raise unknown(spec)


def _load_named(backbone: Backbone, offline: bool, cache_dir: str | Path | None) -> LoadedWeights:
    if backbone.name == "bundled":
        return _load_file(BUNDLED_FILE, name=backbone.name, source=backbone.source, backbone=backbone)
    path = fetch(backbone, offline=offline, cache_dir=cache_dir)
    with _names_the_cache(path, backbone.hub, cache_dir):
        _check_sha256(path, backbone)
        loaded = _load_file(path, name=backbone.name, source=f"{backbone.source}: {path}", backbone=backbone)
    # The files of a variant say the activation that they were trained with.
    return (
        replace(loaded.with_activation(backbone.config.activation), name=backbone.name)
        if backbone.same_files_as
        else loaded
    )


def _load_hub(hub_id: str, offline: bool, cache_dir: str | Path | None) -> LoadedWeights:
    path = fetch_repository(hub_id, offline=offline, cache_dir=cache_dir)
    with _names_the_cache(path, hub_id, cache_dir):
        return _load_file(path, name=hub_id, source=f"hub repository {hub_id}: {path}")


@contextmanager
def _names_the_cache(path: Path, hub_id: str | None, cache_dir: str | Path | None) -> Iterator[None]:
    """Have a WeightsError about a file of the hub's cache say what to delete, because it would be read again."""
    try:
        yield
    except WeightsError as error:
        folder = cached_folder(hub_id, cache_dir) if hub_id else None
        if folder is None or folder not in path.parents:
            raise
        raise WeightsError(f"{error}; to fetch it anew, delete the folder {folder}") from error


def _load_file(path: Path, *, name: str, source: str, backbone: Backbone | None = None) -> LoadedWeights:
    """Read and check a file; `backbone` is its entry of the table, if it has one."""
    try:
        raw, header = read_tensors(path)
    except TorchScriptError as error:
        raise WeightsError(f"{error}{_about_archive(path)}") from error
    state = layouts.to_canonical(raw)
    info = BundleInfo.from_metadata(header, str(path)) if header.get("format") == FORMAT else None
    try:
        config, pixels = (info.config, info.pixels) if info else _read_facts(path, raw, state, backbone)
        state = check(state, config)
    except (WeightsError, ConfigError) as error:
        raise WeightsError(f"{path}: {error}") from error
    digest = fingerprint(state, config)
    if info is not None and info.sha256 != digest:
        raise WeightsError(
            f"{path}: weights do not match their own header (sha256 {digest[:16]}…, expected {info.sha256[:16]}…); "
            "the file was damaged or changed, get it again"
        )
    return LoadedWeights(name, config, state, pixels, source, digest)


def _read_facts(
    path: Path, raw: dict[str, Tensor], state: dict[str, Tensor], backbone: Backbone | None
) -> tuple[ClipConfig, PixelFormat]:
    """Return sizes, activation and preprocessing: from the config files of the folder, else the table, else shapes."""
    pixels = backbone.pixels if backbone else CLIP_PIXELS
    if layouts.is_hugging_face(raw):
        config_file = HUGGING_FACE_CONFIG
        config = read_config(path.parent / config_file)
        preprocessor = read_config(path.parent / PREPROCESSOR_CONFIG)
        if preprocessor:
            pixels = layouts.pixels_from_hugging_face(preprocessor)
        if config:
            return layouts.config_from_hugging_face(config), pixels
    else:
        config_file = OPEN_CLIP_CONFIG
        config = read_config(path.parent / config_file)
        if config:
            return layouts.config_from_open_clip(config), layouts.pixels_from_open_clip(config)
    if backbone is not None:
        return backbone.config, pixels
    inferred = layouts.infer_config(state, "quick_gelu")
    if layouts.is_openai(raw):
        return inferred, pixels
    same_sizes = [entry.config for entry in BACKBONES.values() if entry.config.vision == inferred.vision]
    if same_sizes and all(known.activation == "gelu" for known in same_sizes):
        return layouts.infer_config(state, "gelu"), pixels
    warnings.warn(
        f"{path}: no {config_file} in its folder, so its activation is taken to be OpenAI's quick_gelu and its heads 64"
        f" wide; put the weights' {config_file} there if they are not OpenAI's",
        stacklevel=4,
    )
    return inferred, pixels


def _check_sha256(path: Path, backbone: Backbone) -> None:
    """Compare a file of the table with its published hash, if there is one."""
    expected = next((file.sha256 for file in backbone.files if file.name == path.name), None)
    actual = file_digest(path) if expected else ""
    if expected and not actual.startswith(expected):
        raise WeightsError(
            f"{path}: sha256 {actual[:16]}…, expected {expected[:16]}…; the file is damaged or another one: "
            "delete it and get it again"
        )


def _about_archive(path: Path) -> str:
    """Say whether a TorchScript archive is the publisher's, by its hash; "" where no archive of that name is known."""
    for entry in BACKBONES.values():
        if entry.archive and entry.archive[0] == path.name:
            if file_digest(path) == entry.archive[1]:
                return " (its sha256 is the published one)"
            return " (its sha256 is not the published one: get it again)"
    return ""
