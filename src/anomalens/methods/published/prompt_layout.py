"""Read the prompts that the authors of AnomalyCLIP, Crane and Crane+ publish.

All write `torch.save({"prompt_learner": state_dict})`:

| key | shape on ViT-L/14 | what becomes of it |
|---|---|---|
| ctx_pos, ctx_neg | [1, 1, 12, 768] | context vectors of the normal and the abnormal sentence |
| compound_prompts_text.0 … 7 | [4, 768] | deep prompts before text blocks 2 … 9 |
| tokenized_prompts_pos, _neg | [1, 1, 77] int32 | token ids, which must be those of this project's sentences |
| token_prefix_*, token_suffix_* | [1, 1, 1 or 64, 768] | embeddings of the words: kept, to know the backbone by |
| compound_prompt_projections.* | [896, 768], [896] | AnomalyCLIP only, never used: dropped |
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones.checks import check_finite
from anomalens.backbones.tokenizer import encode
from anomalens.errors import WeightsError
from anomalens.methods.parts.learnable import SENTENCES
from anomalens.methods.parts.openai_tokens import WIDTH, check_norms
from anomalens.methods.published.learned_numbers import LearnedNumbers, tensors_in

KEY = "prompt_learner"
_SIDES = ("pos", "neg")
_DEEP, _UNUSED = "compound_prompts_text.", "compound_prompt_projections."


def methods_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the methods that write such a file: of this form, AnomalyCLIP's alone have projections."""
    state = content[KEY]
    projections = isinstance(state, dict) and any(str(name).startswith(_UNUSED) for name in state)
    return ("anomalyclip",) if projections else ("crane", "crane+")


def read_prompts(content: Mapping[str, Any]) -> LearnedNumbers:
    """Return the learned prompts in a file's content. Raises WeightsError where anything is not as expected."""
    state = _prompt_learner(content)
    ids, rows = _token_rows(state)
    learned = _learned(state)
    check_finite(learned | {"the embeddings": rows}, "the prompts")
    if rows.shape[1] == WIDTH:
        check_norms(ids, rows)
    depth, length = learned["prompts.deep"].shape[:2]
    # The published numbers were made with deep prompts rounded to half precision.
    config = {"n_ctx": len(learned["prompts.normal"]), "depth": depth + 1, "length": length, "half_deep": True}
    return LearnedNumbers(learned, config, rows.shape[1], ids, rows)


def _prompt_learner(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict in a file's content. Raises WeightsError unless every key and type is as expected."""
    state = tensors_in(content[KEY], f'{{"{KEY}": tensors}}, as Crane and AnomalyCLIP publish')
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
        if tokens[:1] != sentence[:1] or tokens[1 + len(context) :][: len(words)] != words:
            raise WeightsError(f"tokenized_prompts_{side}: these are not the tokens of a prompt ending in 'object.'")
        if start.shape != (1, context.shape[1]) or suffix.shape[1] != context.shape[1] or len(suffix) < len(words):
            raise WeightsError(f"token_suffix_{side}: shape {list(suffix.shape)} does not fit the context vectors")
        rows |= {sentence[0]: start[0], **dict(zip(words, suffix, strict=False))}
    ids = tuple(sorted(rows))
    return ids, torch.stack([rows[token] for token in ids])
