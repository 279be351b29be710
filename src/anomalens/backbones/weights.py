"""Weights from a name, a hub id, a folder or a file: found, read, brought to one layout, checked, and hashed.

    spec -> locate -> read tensors -> canonical names -> config -> checks (names, shapes, finite) -> fingerprint

Nothing is unpickled but tensors, and the network is touched only where a name or hub id needs it and `offline` allows.
"""

import hashlib
import json
import re
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones import weight_layouts as layouts
from anomalens.backbones.bundle import BUNDLED_FILE, FORMAT, BundleInfo, read_bundle_info
from anomalens.backbones.config import ClipConfig
from anomalens.backbones.hub import fetch, fetch_repository
from anomalens.backbones.registry import BACKBONES, Backbone, canonical_name, find, unknown
from anomalens.backbones.tower import Clip
from anomalens.backbones.weight_files import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    SUFFIXES,
    TorchScriptError,
    pick_file,
    read_tensors,
)
from anomalens.backbones.weight_layouts import Pixels
from anomalens.errors import ConfigError, WeightsError
from anomalens.images.normalisation import Interpolation, Triple

HUB_PREFIX = "hf-hub:"
_NAMED = 3  # tensors named in one error


@dataclass(frozen=True)
class LoadedWeights:
    """A set of weights, checked, in canonical names."""

    name: str  # the table's name, the hub id, or the name of the file or folder
    config: ClipConfig
    state: dict[str, Tensor]  # OpenAI's names, float32, on the CPU
    mean: Triple  # per channel of RGB in [0, 1]
    std: Triple
    interpolation: Interpolation
    source: str  # where they were read, in words
    hash: str  # sha256 over config and tensors: the same for the same weights in any layout

    @property
    def image_size(self) -> int:
        """Native side in pixels."""
        return self.config.vision.image_size

    @property
    def is_bundled(self) -> bool:
        """Whether these are the shipped weights, known by their hash, whatever their name, place and layout."""
        try:
            return self.hash == read_bundle_info(BUNDLED_FILE).sha256
        except WeightsError:
            return False

    def clip(self) -> Clip:
        """Build the dual encoder: frozen, float32, on the CPU; it knows the mean and std of its pixels."""
        return Clip.from_state_dict(self.config, self.state, self.mean, self.std)


def load_weights(spec: str | Path, *, offline: bool = False, cache_dir: str | Path | None = None) -> LoadedWeights:
    """Weights of a dual encoder.

    Args:
        spec: a name from the table (clip/backbones.py), "hf-hub:org/name" or "org/name", a folder or a file. A name
            wins over a folder of the same name; write "./name" for the folder.
        offline: never touch the network; the variable HF_HUB_OFFLINE=1 does the same.
        cache_dir: where named weights are looked for and fetched ones kept; None takes the user's cache folder and the
            hub client's.

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
        return _load_file(BUNDLED_FILE, name=backbone.name, source=backbone.source, known=backbone)
    path = fetch(backbone, offline=offline, cache_dir=cache_dir)
    return _load_file(path, name=backbone.name, source=f"{backbone.source}: {path}", known=backbone)


def _load_hub(hub_id: str, offline: bool, cache_dir: str | Path | None) -> LoadedWeights:
    path = fetch_repository(hub_id, offline=offline, cache_dir=cache_dir)
    return _load_file(path, name=hub_id, source=f"hub repository {hub_id}: {path}")


def _load_file(path: Path, *, name: str, source: str, known: Backbone | None = None) -> LoadedWeights:
    if known is not None:
        _check_sha256(path, known)
    try:
        raw, header = read_tensors(path)
    except TorchScriptError as error:
        raise WeightsError(f"{error}{_about_archive(path)}") from error
    state = layouts.to_canonical(raw)
    info = BundleInfo.from_metadata(header, str(path)) if header.get("format") == FORMAT else None
    try:
        config, pixels = (
            (info.config, Pixels(info.mean, info.std, info.interpolation)) if info else _facts(path, raw, state, known)
        )
        state = check(state, config)
    except (WeightsError, ConfigError) as error:
        raise WeightsError(f"{path}: {error}") from error
    digest = fingerprint(state, config)
    if info is not None and info.sha256 != digest:
        raise WeightsError(
            f"{path}: weights do not match their own header (sha256 {digest[:16]}…, expected {info.sha256[:16]}…); "
            "the file was damaged or changed, get it again"
        )
    return LoadedWeights(name, config, state, pixels.mean, pixels.std, pixels.interpolation, source, digest)


# ---------------------------------------------------------------------------------------------- what is beside it
def _facts(
    path: Path, raw: dict[str, Tensor], state: dict[str, Tensor], known: Backbone | None
) -> tuple[ClipConfig, Pixels]:
    """Sizes, activation and preprocessing: from the config beside the file, else the table, else the shapes."""
    readers: tuple[tuple[str, Callable[[Any], ClipConfig]], ...] = (
        (HUGGING_FACE_CONFIG, layouts.config_from_hugging_face),
        (OPEN_CLIP_CONFIG, layouts.config_from_open_clip),
    )
    which = 0 if layouts.is_hugging_face(raw) else 1
    name, reader = readers[which]
    beside = _read_json(path.parent / name)
    pixels = Pixels(known.mean, known.std, known.interpolation) if known else Pixels()
    if which == 0:
        prepared = _read_json(path.parent / "preprocessor_config.json")
        pixels = layouts.pixels_from_hugging_face(prepared) if prepared else pixels
    elif beside:
        pixels = layouts.pixels_from_open_clip(beside)
    if beside:
        return reader(beside), pixels
    if known is not None:
        return known.config, pixels
    inferred = layouts.infer_config(state, "quick_gelu")
    if layouts.is_openai(raw):
        return inferred, pixels
    exact = [one.config for one in BACKBONES.values() if one.config.vision == inferred.vision]
    if exact and all(one.activation == "gelu" for one in exact):
        return layouts.infer_config(state, "gelu"), pixels
    warnings.warn(
        f"{path}: no {name} beside it, so its activation is taken to be OpenAI's quick_gelu and its heads 64 wide; "
        f"put the weights' {name} there if they are not OpenAI's",
        stacklevel=4,
    )
    return inferred, pixels


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path.name} beside it cannot be read ({error}); get it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path.name} beside it is no JSON object; get it again")
    return found


def _check_sha256(path: Path, known: Backbone) -> None:
    """Compare a file of the table with its published hash, where there is one."""
    expected = next((file.sha256 for file in known.files if file.name == path.name), None)
    if expected is None:
        return
    found = _sha256(path)
    if not found.startswith(expected):
        raise WeightsError(
            f"{path}: sha256 {found[:16]}…, expected {expected[:16]}…; the file is damaged or another one: "
            "delete it and get it again"
        )


def _about_archive(path: Path) -> str:
    """Whether a TorchScript archive is the publisher's, by its hash."""
    published = [one.archive for one in BACKBONES.values() if one.archive and one.archive[0] == path.name]
    if not published:
        return ""
    same = _sha256(path) == published[0][1]
    return " (its sha256 is the published one)" if same else " (its sha256 is not the published one: get it again)"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------------- checks
def check(state: dict[str, Tensor], config: ClipConfig) -> dict[str, Tensor]:
    """The same weights as float32, after making sure that they are what `config` needs.

    Raises:
        WeightsError: tensors are missing, superfluous, of another shape, not numbers or not finite; each is named.
    """
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in Clip(config).canonical_state_dict().items()}
    missing, unexpected = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    if missing or unexpected:
        parts = [_listed("missing", missing)] if missing else []
        parts += [_listed("unexpected", unexpected)] if unexpected else []
        raise WeightsError(f"not the weights of this CLIP: {'; '.join(parts)}")
    wrong = [name for name in expected if state[name].shape != expected[name]]
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"{first}: expected shape {list(expected[first])}, found {list(state[first].shape)}"
            + (f" (and {len(wrong) - 1} more tensors of wrong shape)" if len(wrong) > 1 else "")
            + "; the config and the weights do not belong together"
        )
    integers = sorted(name for name in expected if not state[name].is_floating_point())
    if integers:
        raise WeightsError(f"{_listed('not floating point', integers)}; quantised weights are not read")
    full = {name: state[name].to(torch.float32).contiguous() for name in sorted(expected)}
    check_finite(full, "the weights")
    return full


def check_finite(state: dict[str, Tensor], what: str) -> None:
    """Raises WeightsError naming the tensors that hold NaN or infinity."""
    # A sum is not finite if any summand is not; only where it is not (it may overflow) every number is looked at.
    bad = [name for name, t in state.items() if not t.sum().isfinite() and not t.isfinite().all()]
    if bad:
        raise WeightsError(f"{what} hold NaN or infinity: {_listed('tensors', bad)}; get them again")


def _listed(what: str, names: list[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > _NAMED else ""
    return f"{what} {', '.join(names[:_NAMED])}{more}"


def fingerprint(state: dict[str, Tensor], config: ClipConfig) -> str:
    """sha256 (hex) over the config and every tensor's name, shape and bytes: what features may be cached under.

    Tensors are hashed side by side in threads (hashing releases the interpreter's lock).
    """

    def one(name: str) -> bytes:
        tensor = state[name].detach().cpu().contiguous()
        head = f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode()
        return hashlib.sha256(
            head + hashlib.sha256(tensor.reshape(-1).view(torch.uint8).numpy().data).digest()
        ).digest()

    whole = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode())
    with ThreadPoolExecutor() as pool:
        for digest in pool.map(one, sorted(state)):
            whole.update(digest)
    return whole.hexdigest()
