"""Bring the layouts of three publishers to one: names of tensors, sizes, preprocessing.

* Hugging Face `CLIPModel`: `vision_model.encoder.layers.…`, queries, keys and values apart; `config.json`.
* open_clip: OpenAI's names, or the text tower under `text.`; `open_clip_config.json`.
* OpenAI: `visual.transformer.resblocks.…`; sizes follow from the shapes, heads are 64 wide.

The canonical names are OpenAI's (see `tower.py`).
"""

import math
import re
from typing import Any

import torch
from torch import Tensor

from anomalens.backbones.config import Activation, ClipConfig, TextConfig, VisionConfig
from anomalens.backbones.weight_files import OPEN_CLIP_CONFIG, PREPROCESSOR_CONFIG
from anomalens.errors import ConfigError, WeightsError, one_line
from anomalens.images.normalisation import CLIP_MEAN, CLIP_STD, PixelFormat

Json = dict[str, Any]


# --------------------------------------------------------------------------------------------------------- names
_OPENAI_SCALARS = ("input_resolution", "context_length", "vocab_size")
_BUFFERS = ("attn_mask", "text.attn_mask", "vision_model.embeddings.position_ids", "text_model.embeddings.position_ids")

_HUGGING_FACE = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj",
    "text_model.embeddings.token_embedding": "token_embedding",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection",
    "vision_model.encoder.layers": "visual.transformer.resblocks",
    "text_model.encoder.layers": "transformer.resblocks",
}
_HUGGING_FACE_BLOCK = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def is_hugging_face(state: dict[str, Tensor]) -> bool:
    """Return whether the names are those of `CLIPModel`."""
    return any(name.startswith(("vision_model.", "text_model.")) for name in state)


def is_openai(state: dict[str, Tensor]) -> bool:
    """Return whether the state dict comes from OpenAI's own archive, which keeps its sizes as tensors."""
    return all(name in state for name in _OPENAI_SCALARS)


def to_canonical(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of any layout to OpenAI's names; unknown names are kept, so that they can be reported."""
    state = {name: value for name, value in state.items() if name not in (*_OPENAI_SCALARS, *_BUFFERS)}
    if state and all(name.startswith("module.") for name in state):  # saved from data-parallel training
        state = {name.removeprefix("module."): value for name, value in state.items()}
    if is_hugging_face(state):
        state = _from_hugging_face(state)
    else:
        state = {name.removeprefix("text."): value for name, value in state.items()}
    if "logit_scale" in state and state["logit_scale"].numel() == 1:
        state["logit_scale"] = state["logit_scale"].reshape(())
    return state


def _from_hugging_face(state: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for name, value in state.items():
        projection = re.fullmatch(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)", name)
        if projection is None:
            transposed = name in ("visual_projection.weight", "text_projection.weight") and value.dim() == 2
            out[_renamed(name)] = value.T.contiguous() if transposed else value
        elif projection[2] == "q":
            names = [f"{projection[1]}.self_attn.{letter}_proj.{projection[3]}" for letter in "qkv"]
            shapes = {state[name].shape for name in names if name in state}
            # Else it is reported as missing under its canonical name.
            if state.keys() >= set(names) and len(shapes) == 1 and value.dim():
                out[f"{_renamed(projection[1])}.attn.in_proj_{projection[3]}"] = torch.cat([state[n] for n in names])
    return out


def _renamed(name: str) -> str:
    for old, new in (*_HUGGING_FACE.items(), *_HUGGING_FACE_BLOCK.items()):
        name = re.sub(rf"(^|(?<=\.)){re.escape(old)}(?=$|\.)", new, name)
    return name


# --------------------------------------------------------------------------------------------------------- sizes
def infer_config(state: dict[str, Tensor], activation: Activation) -> ClipConfig:
    """Read the sizes of both towers off canonical shapes; heads are taken to be 64 wide, as OpenAI's are.

    Raises:
        WeightsError: a tensor that must be there is not, or the sizes are not those of a CLIP with plain towers.
    """

    def shape(name: str, dims: int) -> torch.Size:
        if name not in state:
            first = ", ".join(sorted(state)[:3])
            raise WeightsError(f"no tensor {name!r}: not the weights of a CLIP with both towers (found {first}, …)")
        if state[name].dim() != dims:
            raise WeightsError(f"{name}: expected {dims} dimensions, found shape {list(state[name].shape)}")
        return state[name].shape

    def blocks(tower: str) -> int:
        matches = [re.match(rf"{re.escape(tower)}transformer\.resblocks\.(\d{{1,4}})\.", name) for name in state]
        return max((int(match[1]) + 1 for match in matches if match), default=0)

    width, _, patch, _ = shape("visual.conv1.weight", 4)
    rows = shape("visual.positional_embedding", 2)[0] - 1
    grid = math.isqrt(max(rows, 0))
    hidden = shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0]
    vocab, text_width = shape("token_embedding.weight", 2)
    if grid * grid != rows or grid == 0:
        raise WeightsError(f"visual.positional_embedding: {rows} patches make no square grid")
    if width % 64 or text_width % 64 or not width or not text_width:
        raise WeightsError(
            f"widths {width} and {text_width} do not tell the number of heads; put the weights' config.json or "
            "open_clip_config.json into their folder"
        )
    vision = VisionConfig(grid * patch, patch, width, blocks("visual."), width // 64, _ratio(hidden, width))
    context = shape("positional_embedding", 2)[0]
    text = TextConfig(text_width, blocks(""), text_width // 64, context, vocab)
    return ClipConfig(vision, text, shape("text_projection", 2)[1], activation)


def _ratio(hidden: int, width: int) -> float:
    """Return hidden / width, rounded so that int(width * ratio) is `hidden` again."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _integers(part: Json, *names: str) -> list[int]:
    """Return entries as whole numbers. Raises KeyError, TypeError, ValueError."""
    return [int(part[name]) for name in names]


# What `transformers` takes where a CLIPModel's config leaves a size out.
_COMMON: Json = {"num_hidden_layers": 12, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
_VISION_DEFAULTS: Json = _COMMON | {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_VISION_DEFAULTS |= {"image_size": 224, "patch_size": 32}
_TEXT_DEFAULTS: Json = _COMMON | {"hidden_size": 512, "num_attention_heads": 8}
_TEXT_DEFAULTS |= {"max_position_embeddings": 77, "vocab_size": 49408}


def config_from_hugging_face(value: Json) -> ClipConfig:
    """Read `config.json` of a `CLIPModel`; what it leaves out has the library's default. Raises WeightsError."""
    try:
        # Old files repeat the sizes under "…_config_dict", which then counts.
        vision = _VISION_DEFAULTS | (value.get("vision_config") or {}) | (value.get("vision_config_dict") or {})
        text = _TEXT_DEFAULTS | (value.get("text_config") or {}) | (value.get("text_config_dict") or {})
        if value.get("model_type", "clip") != "clip":
            raise WeightsError(f"config.json: model type {value['model_type']!r}, expected 'clip'")
        for tower in (vision, text):
            if tower["layer_norm_eps"] != 1e-5:
                raise WeightsError(f"config.json: layer_norm_eps {tower['layer_norm_eps']}, this CLIP has 1e-05")
        if vision["hidden_act"] != text["hidden_act"] or vision["hidden_act"] not in ("quick_gelu", "gelu"):
            raise WeightsError(
                f"config.json: activations {vision['hidden_act']!r} and {text['hidden_act']!r}, expected 'quick_gelu' "
                "or 'gelu' in both towers"
            )
        common = ("hidden_size", "num_hidden_layers", "num_attention_heads")
        image_size, patch, hidden = _integers(vision, "image_size", "patch_size", "intermediate_size")
        width, layers, heads = _integers(vision, *common)
        return ClipConfig(
            VisionConfig(image_size, patch, width, layers, heads, _ratio(hidden, width)),
            TextConfig(*_integers(text, *common, "max_position_embeddings", "vocab_size")),
            joint=int(value.get("projection_dim", 512)),
            activation=vision["hidden_act"],
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"config.json: not the config of a CLIPModel ({one_line(error)})") from error


# The keys of open_clip's config that are understood; a tower that needs any other is refused.
_OPEN_CLIP_VISION = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"}
_OPEN_CLIP_TEXT = {"width": 512, "layers": 12, "heads": 8, "context_length": 77, "vocab_size": 49408, "mlp_ratio": 4.0}
_OPEN_CLIP_MODEL = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale"}


def config_from_open_clip(value: Json) -> ClipConfig:
    """Read `open_clip_config.json`. Raises WeightsError, also for parts this CLIP does not have (timm, ResNets)."""
    try:
        model = value["model_cfg"]
        vision, text = model["vision_cfg"], _OPEN_CLIP_TEXT | model["text_cfg"]
        for part, known in ((model, _OPEN_CLIP_MODEL), (vision, _OPEN_CLIP_VISION), (text, _OPEN_CLIP_TEXT)):
            foreign = sorted(key for key, asked in part.items() if key not in known and asked not in (None, False))
            if foreign:
                raise WeightsError(
                    f"open_clip_config.json asks for {', '.join(foreign)}, which this CLIP (plain transformers) has not"
                )
        image_size, patch, width, layers = _integers(vision, "image_size", "patch_size", "width", "layers")
        head = int(vision.get("head_width", 64))
        if width % head:
            raise WeightsError(f"open_clip_config.json: width {width} is not a multiple of the head width {head}")
        if float(text["mlp_ratio"]) != 4.0:
            raise WeightsError(f"open_clip_config.json: text mlp_ratio {text['mlp_ratio']}, this CLIP has 4")
        return ClipConfig(
            VisionConfig(image_size, patch, width, layers, width // head, float(vision.get("mlp_ratio", 4.0))),
            TextConfig(*_integers(text, "width", "layers", "heads", "context_length", "vocab_size")),
            joint=int(model["embed_dim"]),
            activation="quick_gelu" if model.get("quick_gelu") else "gelu",
        )
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise WeightsError(f"open_clip_config.json: not the config of a CLIP ({one_line(error)})") from error


# ----------------------------------------------------------------------------------------------- preprocessing
def pixels_from_hugging_face(value: Json) -> PixelFormat:
    """Read `preprocessor_config.json`, whose resampling is Pillow's number. Raises WeightsError."""
    resample = value.get("resample", 3)
    interpolation = {"2": "bilinear", "3": "bicubic"}.get(str(resample), resample)
    return _pixels(value.get("image_mean"), value.get("image_std"), interpolation, PREPROCESSOR_CONFIG)


def pixels_from_open_clip(value: Json) -> PixelFormat:
    """Read the part `preprocess_cfg` of `open_clip_config.json`. Raises WeightsError."""
    part = value.get("preprocess_cfg") or {}
    if not isinstance(part, dict):
        raise WeightsError(f"{OPEN_CLIP_CONFIG}: preprocess_cfg must be a table")
    return _pixels(part.get("mean"), part.get("std"), part.get("interpolation", "bicubic"), OPEN_CLIP_CONFIG)


def _pixels(mean: Any, std: Any, interpolation: Any, file: str) -> PixelFormat:
    try:
        return PixelFormat.parse(mean or CLIP_MEAN, std or CLIP_STD, interpolation)
    except ConfigError as error:
        raise WeightsError(f"{file}: {error}") from error
