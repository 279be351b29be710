"""Files as the authors of learned methods publish them, with random numbers, for any sizes of a dual encoder."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import adaclip_written_out
from anomalens.backbones.config import ClipConfig
from anomalens.backbones.tokenizer import encode
from anomalens.methods.parts.learnable import SENTENCES

Named = dict[str, Tensor]


def prompts(table: Tensor, *, projections: bool, deep: int = 2, seed: int = 3) -> dict[str, Named]:
    """Return a file as AnomalyCLIP (`projections`) or Crane writes it, for a token table [vocab, width]."""
    generator = torch.Generator().manual_seed(seed)
    width = table.shape[1]
    state: Named = {}
    for side, sentence in zip(("pos", "neg"), encode(SENTENCES), strict=True):
        ids = [sentence[0], *[343] * 12, *sentence[1:]]
        ids += [0] * (77 - len(ids))
        state[f"ctx_{side}"] = torch.randn(1, 1, 12, width, generator=generator)
        state[f"token_prefix_{side}"] = table[ids[:1]][None, None]
        state[f"token_suffix_{side}"] = table[ids[13:]][None, None]
        state[f"tokenized_prompts_{side}"] = torch.tensor(ids, dtype=torch.int32)[None, None]
    for i in range(deep):
        state[f"compound_prompts_text.{i}"] = torch.randn(4, width, generator=generator)
        if projections:
            state[f"compound_prompt_projections.{i}.weight"] = torch.randn(3, width, generator=generator)
            state[f"compound_prompt_projections.{i}.bias"] = torch.randn(3, generator=generator)
    return {"prompt_learner": state}


def aprilgan(config: ClipConfig) -> dict[str, Named]:
    """Return a file as APRIL-GAN writes it."""
    generator = torch.Generator().manual_seed(4)
    state: Named = {}
    for number in range(4):
        state[f"fc.{number}.weight"] = torch.randn(config.joint, config.vision.width, generator=generator) * 0.05
        state[f"fc.{number}.bias"] = torch.randn(config.joint, generator=generator) * 0.05
    return {"trainable_linearlayer": state}


def adaclip(config: ClipConfig) -> Named:
    """Return a file as AdaCLIP writes it."""
    return adaclip_written_out.learned_tensors(5, config.vision.width, config.text.width, config.joint)


def of_method(method: str, config: ClipConfig, table: Tensor, seed: int = 3) -> Any:
    """Return the content of a file as the authors of a method write it; prompts are drawn with `seed`."""
    if method == "aprilgan":
        return aprilgan(config)
    if method == "adaclip":
        return adaclip(config)
    return prompts(table, projections=method == "anomalyclip", seed=seed)


def published_names(method: str, learned: Named) -> Named:
    """Return the parameters of one of our methods in the names of its authors' file: the inverse of an import."""
    if method == "aprilgan":
        return {name.replace("maps.", "fc."): value for name, value in learned.items()}
    if method != "adaclip":
        out = {"ctx_pos": learned["prompts.normal"][None, None], "ctx_neg": learned["prompts.abnormal"][None, None]}
        return out | {f"compound_prompts_text.{i}": value for i, value in enumerate(learned["prompts.deep"])}
    out = {}
    for number, value in enumerate(learned["visual_static"]):
        out[f"visual_prompter.static_prompts.{number}"] = value
    for number, value in enumerate(learned["text_static"], start=1):
        out[f"text_prompter.static_prompts.{number}"] = value
    for part in ("weight", "bias"):
        out[f"cls_token_layer.head.0.{part}"] = learned[f"image_map.{part}"]
        for number in range(4):
            out[f"patch_token_layer.head.{number}.{part}"] = learned[f"patch_maps.{number}.{part}"]
        for side in ("visual", "text"):
            for number, value in enumerate(learned[f"{side}_dynamic.{part}"].chunk(5)):
                out[f"dynamic_{side}_prompt_generator.head.{number}.{part}"] = value
    return {f"clip_model.{name}": value for name, value in out.items()}


def saved(path: Path, content: object) -> Path:
    """Write a file as its authors do."""
    torch.save(content, path)
    return path
