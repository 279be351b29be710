"""A small random CLIP, written as each publisher would: Hugging Face, open_clip, OpenAI."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from anomalens.backbones.config import Activation

IMAGE, PATCH, WIDTH, TEXT_WIDTH, JOINT, VOCAB, CONTEXT = 48, 16, 128, 64, 32, 300, 20


def hugging_face(activation: Activation = "quick_gelu", seed: int = 0, heads: int = 2) -> CLIPModel:
    """Return the independent implementation, in eval mode. Weights are large enough for every part to matter.

    heads: of the image tower.
    """
    torch.manual_seed(seed)
    common = {"hidden_act": activation, "attention_dropout": 0.0}
    model = CLIPModel(
        CLIPConfig(
            vision_config={
                "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": 3,
                "num_attention_heads": heads,
                "image_size": IMAGE, "patch_size": PATCH, **common,
            },
            text_config={
                "hidden_size": TEXT_WIDTH, "intermediate_size": 4 * TEXT_WIDTH, "num_hidden_layers": 2,
                "num_attention_heads": 1, "vocab_size": VOCAB, "max_position_embeddings": CONTEXT,
                "bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1, "pad_token_id": 0, **common,
            },
            projection_dim=JOINT,
        )
    )  # fmt: skip
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                value.normal_(std=value[0].numel() ** -0.5)
            elif name != "logit_scale":
                value.add_(0.1 * torch.randn_like(value))
    model.eval()
    return model


def openai_names(model: CLIPModel) -> dict[str, Tensor]:
    """Return the same weights in OpenAI's names, written out by hand rather than by the code under test."""
    source = model.state_dict()
    out = {
        "logit_scale": source["logit_scale"],
        "visual.class_embedding": source["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": source["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": source["vision_model.embeddings.position_embedding.weight"],
        "visual.proj": source["visual_projection.weight"].T.contiguous(),
        "token_embedding.weight": source["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": source["text_model.embeddings.position_embedding.weight"],
        "text_projection": source["text_projection.weight"].T.contiguous(),
    }
    for kind in ("weight", "bias"):
        out[f"visual.ln_pre.{kind}"] = source[f"vision_model.pre_layrnorm.{kind}"]
        out[f"visual.ln_post.{kind}"] = source[f"vision_model.post_layernorm.{kind}"]
        out[f"ln_final.{kind}"] = source[f"text_model.final_layer_norm.{kind}"]
        for source_prefix, prefix, layers in (("vision_model", "visual.", 3), ("text_model", "", 2)):
            for i in range(layers):
                old, new = f"{source_prefix}.encoder.layers.{i}", f"{prefix}transformer.resblocks.{i}"
                qkv = [source[f"{old}.self_attn.{which}_proj.{kind}"] for which in "qkv"]
                out[f"{new}.attn.in_proj_{kind}"] = torch.cat(qkv)
                out[f"{new}.attn.out_proj.{kind}"] = source[f"{old}.self_attn.out_proj.{kind}"]
                out[f"{new}.ln_1.{kind}"] = source[f"{old}.layer_norm1.{kind}"]
                out[f"{new}.ln_2.{kind}"] = source[f"{old}.layer_norm2.{kind}"]
                out[f"{new}.mlp.c_fc.{kind}"] = source[f"{old}.mlp.fc1.{kind}"]
                out[f"{new}.mlp.c_proj.{kind}"] = source[f"{old}.mlp.fc2.{kind}"]
    return {name: value.detach().clone() for name, value in out.items()}


def state() -> dict[str, Tensor]:
    """Return the small CLIP's weights in OpenAI's names. Calls share the tensors: change the dictionary only."""
    return dict(_state())


@cache
def _state() -> dict[str, Tensor]:
    return openai_names(hugging_face())


def open_clip_config(activation: Activation = "quick_gelu") -> dict[str, Any]:
    """Return `open_clip_config.json` of the same model."""
    model: dict[str, Any] = {
        "embed_dim": JOINT,
        "vision_cfg": {"image_size": IMAGE, "layers": 3, "width": WIDTH, "patch_size": PATCH},
        "text_cfg": {"context_length": CONTEXT, "vocab_size": VOCAB, "width": TEXT_WIDTH, "heads": 1, "layers": 2},
    }
    if activation == "quick_gelu":
        model["quick_gelu"] = True
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bilinear"}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def write_hugging_face(folder: Path, model: CLIPModel) -> Path:
    """Write `model.safetensors` and `config.json`, as `save_pretrained` leaves them."""
    model.save_pretrained(folder)
    return folder


def write_open_clip(folder: Path, state: dict[str, Tensor], activation: Activation, custom_text: bool = False) -> Path:
    """Write `open_clip_model.safetensors` and its config; `custom_text` puts the text tower under `text.`."""
    folder.mkdir(parents=True, exist_ok=True)
    if custom_text:
        own = ("visual.", "logit_scale")
        state = {name if name.startswith(own) else f"text.{name}": value for name, value in state.items()}
    save_file(state, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(open_clip_config(activation)))
    return folder


def write_openai(path: Path, state: dict[str, Tensor], half: bool = False) -> Path:
    """Return a plain `.pt` state dict with OpenAI's three size scalars."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sizes = {"input_resolution": IMAGE, "context_length": CONTEXT, "vocab_size": VOCAB}
    scalars = {name: torch.tensor(value) for name, value in sizes.items()}
    torch.save({**{k: v.half() if half else v for k, v in state.items()}, **scalars}, path)
    return path
