"""Import the published prompts of Crane and AnomalyCLIP as checkpoints of this project.

Both write `torch.save({"prompt_learner": state_dict})`:

| key | shape on ViT-L/14 | what becomes of it |
|---|---|---|
| ctx_pos, ctx_neg | [1, 1, 12, 768] | context vectors of the normal and the abnormal sentence |
| compound_prompts_text.0 … 7 | [4, 768] | deep prompts before text blocks 2 … 9 |
| tokenized_prompts_pos, _neg | [1, 1, 77] int32 | token ids, which must be those of this project's sentences |
| token_prefix_*, token_suffix_* | [1, 1, 1 or 64, 768] | embeddings of the words: kept, to know the backbone by |
| compound_prompt_projections.* | [896, 768], [896] | AnomalyCLIP only, never used: dropped |

Nothing in a file is run. Crane's published files are known by the sums of what
they hold; these and the norms of the embeddings are the ones recorded for them (code 39181f9, MIT licence).
"""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones.checks import check_finite
from anomalens.backbones.tokenizer import encode
from anomalens.backbones.weight_files import load_torch
from anomalens.errors import ConfigError, WeightsError
from anomalens.methods import base
from anomalens.methods.parts.checkpoints import Checkpoint, CheckpointInfo
from anomalens.methods.parts.learnable import SENTENCES

METHODS = ("anomalyclip", "crane", "crane+")
# The backbone the prompts were made with, and the width of its text tower.
_BACKBONE = "ViT-L-14-336"
_WIDTH = 768
_SIDES = ("pos", "neg")
_DEEP, _UNUSED = "compound_prompts_text.", "compound_prompt_projections."
_LICENCES = {"crane": "MIT (© 2024 Alireza Salehi)", "anomalyclip": "MIT (© 2024 Qihang Zhou)"}

# L2 norms of embeddings in OpenAI's ViT-L/14@336px token table, by token id.
NORMS: Mapping[int, float] = MappingProxyType(
    {49406: 0.6507, 14115: 0.3992, 269: 0.3729, 49407: 1.0777, 13568: 0.3808, 0: 0.4113}
)


@dataclass(frozen=True)
class Known:
    """Identify a published file by what it holds: sum and L2 norm of its context vectors and deep prompts."""

    name: str
    method: str
    auxiliary_data: str
    normal: tuple[float, float]
    abnormal: tuple[float, float]
    deep: tuple[float, float]


KNOWN = (
    Known("trained_on_mvtec_crane/epoch_5", "crane", "mvtec", (0.6373, 3.1561), (-2.2572, 2.9717), (-0.7109, 4.8440)),
    Known("trained_on_visa_crane/epoch_5", "crane", "visa", (1.4570, 3.2695), (-2.5041, 3.0660), (2.4016, 5.0451)),
    Known("trained_on_mvtec_cranep/epoch_5", "crane+", "mvtec", (1.6359, 4.1553), (-2.5414, 3.7293), (3.1519, 6.5142)),
    Known("trained_on_mvtec_cranep/epoch_1", "crane+", "mvtec", (0.8426, 2.6853), (-2.4616, 2.5821), (2.2697, 4.4096)),
    Known("trained_on_visa_cranep/epoch_5", "crane+", "visa", (2.4334, 3.9970), (-2.2954, 4.1908), (2.3302, 6.7154)),
)


def import_published(path: str | os.PathLike[str], method: str, auxiliary_data: str | None = None) -> Checkpoint:
    """Read published prompts; `save_checkpoint` writes them in this project's form.

    Args:
        path: the `.pth` file.
        method: "crane", "crane+" or "anomalyclip". The files do not say; Crane's and Crane+'s may be crossed.
        auxiliary_data: what they were trained on ("mvtec", "visa"); None takes what is known of the file.

    Raises:
        ConfigError: a method without published prompts of this form, or what is known of the file contradicts.
        WeightsError: no such file, damaged, of another form, or made with another token table.
    """
    if method not in METHODS:
        raise ConfigError(f"published prompts can be imported for {', '.join(METHODS)}, not for {method!r}")
    content = load_torch(Path(path))
    try:
        state = _prompt_learner(content)
        ids, rows = _token_rows(state)
        learned = _learned(state)
        check_finite(learned | {"the embeddings": rows}, "the prompts")
        if rows.shape[1] == _WIDTH:
            _check_norms(ids, rows)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    known = recognise(learned)
    if known:
        _check_claims(str(path), known, method, auxiliary_data)
    depth, length = learned["prompts.deep"].shape[:2]
    # The published numbers were made with deep prompts rounded to half precision.
    config = {"n_ctx": len(learned["prompts.normal"]), "depth": depth + 1, "length": length, "half_deep": True}
    base.entry(method).config(**config)
    info = CheckpointInfo(
        method=method,
        config=config,
        backbone=_BACKBONE if rows.shape[1] == _WIDTH else f"text width {rows.shape[1]}",
        weights="",
        auxiliary_data=auxiliary_data or (known.auxiliary_data if known else "not known"),
        licence=_LICENCES[method.rstrip("+")],
        training={"published": known.name if known else Path(path).name},
    )
    return Checkpoint(info, learned, token_ids=ids, token_rows=rows, source=str(path))


def recognise(learned: Mapping[str, Tensor]) -> Known | None:
    """Return the published file that holds these prompts, by sums and norms in float64; None where none does."""
    numbers = [value for name in ("normal", "abnormal", "deep") for value in fingerprint(learned[f"prompts.{name}"])]
    for known in KNOWN:
        recorded = (*known.normal, *known.abnormal, *known.deep)
        if all(math.isclose(a, b, abs_tol=1e-4) for a, b in zip(numbers, recorded, strict=True)):
            return known
    return None


def _check_claims(path: str, known: Known, method: str, auxiliary_data: str | None) -> None:
    if method.rstrip("+") != known.method.rstrip("+"):
        raise ConfigError(f"{path}: its prompts are {known.name} of Crane, not of {method!r}; give {known.method!r}")
    if auxiliary_data not in (None, known.auxiliary_data):
        raise ConfigError(
            f"{path}: its prompts are {known.name} of Crane, trained on {known.auxiliary_data!r}, not on "
            f"{auxiliary_data!r}; leave the name out"
        )


def fingerprint(values: Tensor) -> tuple[float, float]:
    """Return sum and L2 norm in float64."""
    exact = values.double()
    return float(exact.sum()), float(exact.norm())


# ------------------------------------------------------------------------------------------------------------ reading
def _prompt_learner(content: Any) -> dict[str, Tensor]:
    """Return the state dict in a file's content. Raises WeightsError unless every key and type is as expected."""
    state = content.get("prompt_learner") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(
            'expected {"prompt_learner": tensors}, as Crane and AnomalyCLIP publish; found something else'
        )
    state = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    deep = sorted(name for name in state if name.startswith(_DEEP))
    kinds = ("ctx", "token_prefix", "token_suffix", "tokenized_prompts")
    expected = {f"{kind}_{side}" for kind in kinds for side in _SIDES}
    expected |= {f"{_DEEP}{i}" for i in range(max(1, len(deep)))}
    if state.keys() != expected:
        odd = sorted(state.keys() ^ expected)
        raise WeightsError(
            f"expected 8 tensors and deep prompts; {odd[0]!r} is {'extra' if odd[0] in state else 'missing'}"
        )
    for name, value in state.items():
        dtype = torch.int32 if name.startswith("tokenized") else torch.float32
        if value.dtype != dtype:
            raise WeightsError(f"{name}: expected {dtype}, found {value.dtype}")
    return state


def _learned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    deep = [state[f"{_DEEP}{i}"] for i in range(sum(name.startswith(_DEEP) for name in state))]
    normal, abnormal = (_matrix(state, f"ctx_{side}") for side in _SIDES)
    width = normal.shape[1]
    if abnormal.shape != normal.shape or any(d.dim() != 2 or d.shape != (len(deep[0]), width) for d in deep):
        raise WeightsError("context vectors and deep prompts differ in width or length")
    return {"prompts.normal": normal, "prompts.abnormal": abnormal, "prompts.deep": torch.stack(deep)}


def _matrix(state: dict[str, Tensor], name: str) -> Tensor:
    value = state[name]
    if value.dim() != 4 or value.shape[:2] != (1, 1):
        raise WeightsError(f"{name}: expected shape [1, 1, rows, width], found {list(value.shape)}")
    return value[0, 0]


def _token_rows(state: dict[str, Tensor]) -> tuple[tuple[int, ...], Tensor]:
    """Return the tokens whose embeddings the file holds, and these, once the sentences are seen to be the expected."""
    rows: dict[int, Tensor] = {}
    for side, sentence in zip(_SIDES, encode(SENTENCES), strict=True):
        context = _matrix(state, f"ctx_{side}")
        start, suffix = _matrix(state, f"token_prefix_{side}"), _matrix(state, f"token_suffix_{side}")
        words = [*sentence[1:], 0]  # with one padding token
        tokens = state[f"tokenized_prompts_{side}"].flatten().tolist()
        if tokens[0] != sentence[0] or tokens[1 + len(context) :][: len(words)] != words:
            raise WeightsError(f"tokenized_prompts_{side}: these are not the tokens of a prompt ending in 'object.'")
        if start.shape != (1, context.shape[1]) or suffix.shape[1] != context.shape[1] or len(suffix) < len(words):
            raise WeightsError(f"token_suffix_{side}: shape {list(suffix.shape)} does not fit the context vectors")
        rows |= {sentence[0]: start[0], **dict(zip(words, suffix, strict=False))}
    ids = tuple(sorted(rows))
    return ids, torch.stack([rows[token] for token in ids])


def _check_norms(ids: tuple[int, ...], rows: Tensor) -> None:
    for token, row in zip(ids, rows, strict=True):
        norm = float(row.double().norm())
        if not math.isclose(norm, NORMS[token], abs_tol=2e-4):
            raise WeightsError(
                f"the embedding of token {token} has norm {norm:.4f}, that of {_BACKBONE} has {NORMS[token]:.4f}; "
                "the prompts were made with another backbone or the file is damaged"
            )
