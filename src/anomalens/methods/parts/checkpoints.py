"""Keep what a method has learned in one `.safetensors` file, whose JSON header says all that is needed to use it.

Header (safetensors keeps strings only, so structured values are JSON): `format` "anomalens-prompts", `schema` "1",
`method`, `config` (the method's Config), `backbone`, `weights` (fingerprint of the backbone, backbones/checks.py),
`auxiliary_data`, `licence`, `seed`, `metrics`, `training` (recipe and preprocessing), `version`, `sha256` (of the
tensors, checked at every load).

Tensors: the method's parameters under `learned.`; `auxiliary.images`, one number for each image file trained on, so
that a number on the training set is never taken for a zero-shot one; for imported prompts, whose backbone is known by
name only, `backbone.token_ids` and `backbone.token_rows`, a piece of the token table they were made with.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, cast, get_args

import torch
from safetensors.torch import load, save
from torch import Tensor

from anomalens._version import __version__
from anomalens.backbones.checks import check_finite
from anomalens.backbones.config import Activation
from anomalens.backbones.registry import find
from anomalens.backbones.weights import LoadedWeights
from anomalens.errors import ConfigError, WeightsError, one_line
from anomalens.files import atomic_write, json_ready
from anomalens.methods import base
from anomalens.methods.base import Method
from anomalens.methods.parts.openai_tokens import BACKBONE, is_openai_table
from anomalens.typed_values import build
from anomalens.untrusted import json_value, read_bytes, read_header

FORMAT, SCHEMA = "anomalens-prompts", "1"
SHIPPED = Path(str(files("anomalens").joinpath("bundled", "prompts")))
_LEARNED = "learned."
_MOST_BYTES = 2**30  # of a checkpoint: prompts and small heads
_IMAGES, _IDS, _ROWS = "auxiliary.images", "backbone.token_ids", "backbone.token_rows"


@dataclass(frozen=True)
class CheckpointInfo:
    """Hold what the header says."""

    method: str
    # Fields of the method's Config.
    config: dict[str, Any]
    # Name of the backbone, for people.
    backbone: str
    # Fingerprint of the backbone's weights; "": known by its token table alone.
    weights: str
    # What was trained on; several sets joined by "+".
    auxiliary_data: str
    licence: str
    seed: int | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    # Recipe and preprocessing.
    training: dict[str, Any] = field(default_factory=dict)
    # Version of the package that wrote it.
    version: str = __version__

    def to_metadata(self) -> dict[str, str]:
        """Return the header without its sha256, strings only."""
        texts = {name: getattr(self, name) for name in _TEXTS}
        return {"format": FORMAT, "schema": SCHEMA, **texts} | {
            name: json.dumps(getattr(self, name), allow_nan=False) for name in _VALUES
        }

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: str) -> "CheckpointInfo":
        """Invert `to_metadata`; `path` names the file in errors. Raises WeightsError where the header is not ours."""
        if metadata.get("format") != FORMAT:
            raise WeightsError(
                f"{path}: no checkpoint of this project (no {FORMAT!r} header); make one with `anomalens train`, or"
                " bring published prompts over with `anomalens import-checkpoint`"
            )
        if metadata.get("schema") != SCHEMA:
            raise WeightsError(
                f"{path}: header of schema {metadata.get('schema')!r}, this version reads {SCHEMA!r}; "
                "install a version of anomalens as new as the checkpoint"
            )
        try:
            values: dict[str, Any] = {name: json_value(metadata[name]) for name in _VALUES}
            return build(cls, values | {name: metadata[name] for name in _TEXTS})
        except (KeyError, ValueError) as error:
            raise WeightsError(f"{path}: damaged header ({error}); get the file again") from error


_TEXTS = ("method", "backbone", "weights", "auxiliary_data", "licence", "version")
_VALUES = ("config", "seed", "metrics", "training")


@dataclass(frozen=True)
class Checkpoint:
    """Hold a file's content, checked for damage."""

    info: CheckpointInfo
    # Parameter name -> value.
    learned: dict[str, Tensor]
    # `files.file_key` of every image trained on; empty where not known.
    images: frozenset[int] = frozenset()
    # Tokens whose embeddings are known.
    token_ids: tuple[int, ...] = ()
    # [len(token_ids), D] these embeddings.
    token_rows: Tensor | None = None
    # Names the file in errors.
    source: str = "the checkpoint"

    @property
    def activation(self) -> Activation | None:
        """Return the activation of the tower that it was made with; None: that of the weights.

        Raises WeightsError for one that does not exist.
        """
        stated = self.info.training.get("activation")
        if stated not in (None, *get_args(Activation)):
            raise WeightsError(f"{self.source}: unknown activation {stated!r:.40} in its header; get the file again")
        return cast(Activation | None, stated)


# -------------------------------------------------------------------------------------------------- writing, reading
def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Write a checkpoint as one file, atomically. Raises WeightsError where a number is not finite; OSError."""
    check_finite(checkpoint.learned, f"what was learned for {path}")
    tensors = {f"{_LEARNED}{name}": value for name, value in checkpoint.learned.items()}
    if checkpoint.images:
        tensors[_IMAGES] = torch.tensor(sorted(checkpoint.images))
    if checkpoint.token_rows is not None:
        tensors[_IDS], tensors[_ROWS] = torch.tensor(checkpoint.token_ids), checkpoint.token_rows
    # Clones, because parameters may share memory (shared deep prompts), which the format refuses.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    atomic_write(path, save(tensors, checkpoint.info.to_metadata() | {"sha256": _digest(tensors)}))


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint and check it against its own header.

    Raises:
        WeightsError: missing, no checkpoint of this project, of another schema, or damaged.
    """
    path = Path(path)
    if not os.path.lexists(path):
        raise WeightsError(f"{path}: no such file; make one with `anomalens train`")
    raw = read_bytes(path, error=WeightsError, most_bytes=_MOST_BYTES)
    try:
        metadata = read_header(raw, named="checkpoint", error=WeightsError)
    except WeightsError as error:
        raise WeightsError(f"{path}: cannot be read as a checkpoint ({error}); get it again") from error
    info = CheckpointInfo.from_metadata(metadata, str(path))
    try:
        tensors = load(raw)
        same = metadata.get("sha256") == _digest(tensors)
    except Exception as error:  # kinds of numbers that no checkpoint has can raise anything
        raise WeightsError(f"{path}: damaged ({one_line(error)}); get the file again") from error
    if not same:
        raise WeightsError(
            f"{path}: its tensors do not match their header; the file was damaged or changed, get it again"
        )
    learned = {k.removeprefix(_LEARNED): v for k, v in tensors.items() if k.startswith(_LEARNED)}
    rows = tensors.get(_ROWS)
    try:
        numbers = learned if rows is None else learned | {_ROWS: rows}
        if other := [name for name, value in numbers.items() if not value.is_floating_point()]:
            raise WeightsError(f"{other[0]} is {numbers[other[0]].dtype}, expected floating point")
        if rows is not None and rows.dim() != 2:
            raise WeightsError(f"{_ROWS} has shape {list(rows.shape)}, expected two dimensions")
        check_finite({name: value.float() for name, value in numbers.items()}, "the prompts")
        images, ids = (_whole_numbers(tensors, name) for name in (_IMAGES, _IDS))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return Checkpoint(info, learned, frozenset(images), ids, rows, str(path))


def _whole_numbers(tensors: dict[str, Tensor], name: str) -> tuple[int, ...]:
    """Return the values of a tensor of one dimension, none where there is no such tensor. Raises WeightsError."""
    values = tensors.get(name, torch.zeros(0, dtype=torch.int64))
    if values.dtype != torch.int64 or values.dim() != 1:
        raise WeightsError(f"{name} is {values.dtype} of shape {list(values.shape)}, expected a list of whole numbers")
    return tuple(values.tolist())


def _digest(tensors: dict[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        whole.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        whole.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()


# ------------------------------------------------------------------------------------------------------- using them
def learned_state(method: Method) -> dict[str, Tensor]:
    """Return what a method has learned: its trainable parameters, without frozen guides."""
    return {name: value.detach() for name, value in method.named_parameters() if value.requires_grad}


def config_of(method: Method) -> dict[str, Any]:
    """Return a method's Config as JSON has it."""
    return dict(json_ready(asdict(method.config)))


def shipped_checkpoint(method: str) -> Path:
    """Return the prompts shipped for the bundled backbone. Raises WeightsError where `method` has none."""
    path = SHIPPED / f"{method}.safetensors"
    if not path.is_file():
        shipped = sorted(p.stem for p in SHIPPED.glob("*.safetensors"))
        raise WeightsError(
            f"method {method!r} learns from auxiliary data and nothing learned is shipped for it "
            f"(shipped: {', '.join(shipped) or 'none'}); give --checkpoint FILE, made with `{_how(method, 'bundled')}`"
        )
    return path


def load_method(
    checkpoint: Checkpoint,
    loaded: LoadedWeights,
    method: str | None = None,
    *,
    strict_backbone: bool = True,
    offline: bool = False,
    **options: Any,
) -> Method:
    """Build the method a checkpoint holds, in eval mode, for the backbone `loaded`.

    Args:
        checkpoint: from `read_checkpoint`.
        loaded: the backbone it is used with.
        method: what it must be; None takes what it is.
        strict_backbone: refuse it where it was learned with other weights; False needs no more than fitting sizes.
        offline: never touch the network.
        options: fields of the method's Config that shall differ from those it was learned with.

    Raises:
        WeightsError: it holds another method, was learned with another backbone, or does not fit.
        ConfigError: an option does not exist.
    """
    info, path = checkpoint.info, checkpoint.source
    if method is not None and info.method != method:
        raise WeightsError(f"{path}: holds {info.method!r}, not {method!r}; ask for --method {info.method}")
    if strict_backbone:
        _check_backbone(checkpoint, loaded)
    foreign = sorted(info.config.keys() - set(base.entry(info.method).options))
    if foreign:
        raise WeightsError(
            f"{path}: written by anomalens {info.version} with settings unknown here ({', '.join(foreign)}); "
            f"this is {__version__}"
        )
    built = base.create(info.method, loaded.config, offline=offline, **info.config | options).eval()
    _fill(built, checkpoint)
    return built


def _check_backbone(checkpoint: Checkpoint, loaded: LoadedWeights) -> None:
    info = checkpoint.info
    table = loaded.state["token_embedding.weight"]
    if info.weights:
        same = info.weights == loaded.hash
    elif checkpoint.token_rows is not None:
        same = _same_rows(checkpoint, table)
    else:
        same = info.backbone == BACKBONE and is_published_backbone(loaded)
    if not same:
        own = f"{loaded.name!r} (weights {loaded.hash[:12]}…)"
        learned_with = f"{info.backbone!r} " + (
            f"(weights {info.weights[:12]}…)" if info.weights else "(known by its token table)"
        )
        raise WeightsError(
            f"{checkpoint.source}: learned with backbone {learned_with}, which is not {own}; take that backbone, learn "
            f"anew with `{_how(info.method, loaded.name)}`, or use it all the same with --no-strict-backbone "
            "(strict_backbone=False)"
        )


def is_published_backbone(loaded: LoadedWeights) -> bool:
    """Return whether these are the weights that papers published their checkpoints for, whatever their file is called.

    Known by sizes and by rows of the token table; the activation is the checkpoint's.
    """
    expected = find(BACKBONE).config
    sizes = (expected.vision, expected.text, expected.joint)
    same_sizes = sizes == (loaded.config.vision, loaded.config.text, loaded.config.joint)
    return same_sizes and is_openai_table(loaded.state["token_embedding.weight"])


def _same_rows(checkpoint: Checkpoint, table: Tensor) -> bool:
    rows, ids = checkpoint.token_rows, checkpoint.token_ids
    if rows is None or rows.shape != (len(ids), table.shape[1]) or not ids:
        return False
    if min(ids) < 0 or max(ids) >= len(table):
        return False
    # Half precision in some copies of the weights moves an entry by less than this.
    return torch.allclose(rows, table[list(checkpoint.token_ids)].float().cpu(), atol=1e-3)


def _fill(method: Method, checkpoint: Checkpoint) -> None:
    """Put what was learned into `method`. Raises WeightsError naming the first tensor that does not fit."""
    wanted = {name: value for name, value in method.named_parameters() if value.requires_grad}
    learned, path = checkpoint.learned, checkpoint.source
    unknown = sorted(learned.keys() ^ wanted.keys())
    if unknown:
        side = "missing" if unknown[0] in wanted else "not of this method"
        raise WeightsError(f"{path}: {unknown[0]} is {side} ({len(unknown)} such tensors); get the file again")
    for name, value in wanted.items():
        if learned[name].shape != value.shape:
            raise WeightsError(
                f"{path}: {name} has shape {list(learned[name].shape)}, this backbone and these options need "
                f"{list(value.shape)}; it was learned with backbone {checkpoint.info.backbone!r}"
            )
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(learned[name])


def _how(method: str, backbone: str) -> str:
    return f"anomalens train {method} --data LAYOUT:PATH --backbone {backbone} --out FILE.safetensors"


def missing_checkpoint(method: str, backbone: str, published: str = "") -> ConfigError:
    """Return the error for a learned method without what it learned.

    published: a checkpoint that the authors published for other weights, by name; "": there is none.
    """
    other = f"; what its authors published ({published}) goes with --backbone {BACKBONE}" if published else ""
    return ConfigError(
        f"method {method!r} learns from auxiliary data: give --checkpoint FILE, made with `{_how(method, backbone)}`"
        f"{other}"
    )
