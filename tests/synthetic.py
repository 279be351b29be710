"""Small CLIP weights and inputs that anybody can rebuild from a seed, so that golden figures need no download.

Rule of the weights: sort the state dict's names, number them p = 0, 1, …, draw z = RandomState(seed0 + p)
.standard_normal(shape) and scale it by what the tensor is (see `_scaled`); computed in float64, kept in float32.
Everything drawn here is float32 numpy. Shapes: B images, D tower width, E joint width.
"""

import hashlib
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from anomalens.backbones.config import ClipConfig, TextConfig, VisionConfig

Array = NDArray[Any]
Rule = dict[str, Any]

VOCAB, CONTEXT = 49408, 77


# ------------------------------------------------------------------------------------------------------- weights
def shapes(cfg: Rule) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape in OpenAI's names, for a golden file's `clip` entry."""
    d, t, e, patch = cfg["vision_width"], cfg["text_width"], cfg["joint_dim"], cfg["patch"]
    table: dict[str, tuple[int, ...]] = {
        "visual.conv1.weight": (d, 3, patch, patch),
        "visual.class_embedding": (d,),
        "visual.positional_embedding": (1 + cfg["grid"] ** 2, d),
        "visual.proj": (d, e),
        "token_embedding.weight": (VOCAB, t),
        "positional_embedding": (CONTEXT, t),
        "text_projection": (t, e),
        "logit_scale": (),
    }
    norms = [("visual.ln_pre", d), ("visual.ln_post", d), ("ln_final", t)]
    for tower, width, layers in (("visual.", d, cfg["vision_layers"]), ("", t, cfg["text_layers"])):
        for layer in range(layers):
            block = f"{tower}transformer.resblocks.{layer}"
            norms += [(f"{block}.ln_1", width), (f"{block}.ln_2", width)]
            for name, rows, columns in (
                ("attn.in_proj_", 3 * width, width),
                ("attn.out_proj.", width, width),
                ("mlp.c_fc.", 4 * width, width),
                ("mlp.c_proj.", width, 4 * width),
            ):
                table[f"{block}.{name}weight"] = (rows, columns)
                table[f"{block}.{name}bias"] = (rows,)
    for name, width in norms:
        table[f"{name}.weight"] = table[f"{name}.bias"] = (width,)
    return table


def _scaled(name: str, z: Array) -> Array:
    if name == "logit_scale":
        return np.asarray(4.6)
    if name.endswith("bias"):
        return 0.1 * z
    if name.endswith(("class_embedding", "positional_embedding", "token_embedding.weight")):
        return 0.3 * z
    if ".ln_" in f".{name}":
        return 1.0 + 0.1 * z
    from_the_right = name in ("visual.proj", "text_projection")  # x @ w, where the others are w @ x
    fan_in = z.shape[0] if from_the_right else int(np.prod(z.shape[1:]))
    scaled: Array = z / np.sqrt(float(fan_in))
    return scaled


def state_dict(cfg: Rule) -> dict[str, torch.Tensor]:
    """Return all weights as float32 tensors in OpenAI's names. Calls share the tensors: do not change them."""
    return dict(_state_dict(tuple(sorted((key, int(value)) for key, value in cfg.items()))))


@cache
def _state_dict(cfg: tuple[tuple[str, int], ...]) -> dict[str, torch.Tensor]:
    rule = dict(cfg)
    table = shapes(rule)
    out = {}
    for number, name in enumerate(sorted(table)):
        z = np.random.RandomState(rule["seed0"] + number).standard_normal(table[name])
        out[name] = torch.from_numpy(np.asarray(_scaled(name, np.asarray(z)), dtype=np.float32))
    return out


def config(cfg: Rule, activation: str = "quick_gelu") -> ClipConfig:
    """Return the ClipConfig of a golden file's `clip` entry."""
    return ClipConfig(
        vision=VisionConfig(
            image_size=cfg["grid"] * cfg["patch"],
            patch=cfg["patch"],
            width=cfg["vision_width"],
            layers=cfg["vision_layers"],
            heads=cfg["vision_heads"],
        ),
        text=TextConfig(width=cfg["text_width"], layers=cfg["text_layers"], heads=cfg["text_heads"]),
        joint=cfg["joint_dim"],
        activation=activation,  # type: ignore[arg-type]
    )


# -------------------------------------------------------------------------------------------------------- inputs
def make(rule: Rule) -> Array:
    """Draw the array of an input rule.

    {"dist": "normal", seed, shape, scale, shift} or {"dist": "uniform", seed, shape, low, high}.
    """
    rng = np.random.RandomState(rule["seed"])
    if rule["dist"] == "uniform":
        return rng.uniform(rule["low"], rule["high"], tuple(rule["shape"])).astype(np.float32)
    assert rule["dist"] == "normal", rule
    drawn = rng.standard_normal(tuple(rule["shape"]))
    array: Array = (rule.get("scale", 1.0) * drawn + rule.get("shift", 0.0)).astype(np.float32)
    return array


def prompts(seed: int, width: int, scale: float = 0.05, n_ctx: int = 12, length: int = 4, depth: int = 8) -> Rule:
    """Learned prompts, one generator in this order: ctx_pos and ctx_neg [1, 1, n_ctx, D], then deep: depth times
    [length, D]."""
    rng = np.random.RandomState(seed)
    drawn = [
        (scale * rng.standard_normal(shape)).astype(np.float32)
        for shape in [(1, 1, n_ctx, width)] * 2 + [(length, width)] * depth
    ]
    return {"ctx_pos": drawn[0], "ctx_neg": drawn[1], "deep": drawn[2:]}


def pad_ids(rows: list[list[int]]) -> torch.Tensor:
    """Pad rows of token ids -> [P, 77] int64, zero-padded."""
    out = torch.zeros(len(rows), CONTEXT, dtype=torch.long)
    for i, row in enumerate(rows):
        out[i, : len(row)] = torch.tensor(row)
    return out


def masks(rects: list[list[int] | None], size: int) -> Array:
    """Return [n, size, size]: zeros, or ones on rows r0..r1-1 and columns c0..c1-1 of each [r0, r1, c0, c1]."""
    out = np.zeros((len(rects), size, size), dtype=np.float32)
    for mask, rect in zip(out, rects, strict=True):
        if rect is not None:
            top, bottom, left, right = rect
            mask[top:bottom, left:right] = 1.0
    return out


def linear_stages(seed: int, joint: int, width: int, stages: int = 4) -> list[tuple[Array, Array]]:
    """Affine maps (weight [E, D], bias [E]); stage k is drawn from RandomState(seed + k), weight first."""
    out = []
    for stage in range(stages):
        rng = np.random.RandomState(seed + stage)
        weight = rng.standard_normal((joint, width)) / np.sqrt(float(width))
        bias = 0.1 * rng.standard_normal(joint)
        out.append((weight.astype(np.float32), bias.astype(np.float32)))
    return out


def adapter_init(seed: int, rows: int, dim: int) -> tuple[Array, Array]:
    """Weight [rows, dim], then bias [rows], uniform in ±1/sqrt(dim) from one generator."""
    rng = np.random.RandomState(seed)
    bound = 1.0 / np.sqrt(float(dim))
    weight = rng.uniform(-bound, bound, (rows, dim))
    return weight.astype(np.float32), rng.uniform(-bound, bound, rows).astype(np.float32)


def text_pair(seed: int, dim: int, per_state: int = 462, spread: float = 0.1) -> tuple[Array, Array]:
    """Unit text rows without a text tower: t [2, dim] (normal, abnormal) and sentences [2 * per_state, dim] around
    them, normal first."""
    rng = np.random.RandomState(seed)
    t = _unit(rng.standard_normal((2, dim)))
    sentences = _unit(np.repeat(t, per_state, axis=0) + spread * rng.standard_normal((2 * per_state, dim)))
    return t.astype(np.float32), sentences.astype(np.float32)


def _unit(rows: Array) -> Array:
    scaled: Array = rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    return scaled


def token_noise(seed: int, step: int, shape: list[int], std: float = 0.055) -> Array:
    """Draw the noise of adaptation step `step`, counted from 0."""
    return (std * np.random.RandomState(seed + step).standard_normal(tuple(shape))).astype(np.float32)


# ---------------------------------------------------------------------------------------------------- comparison
def compare(entry: Rule, array: Any) -> tuple[bool, Rule]:
    """Tell whether an array (numpy or tensor) agrees with a golden entry, and the largest differences found.

    Agreement: the shape; every stored sample, the mean, std, min and max within entry["atol"]; the L2 norm within
    atol * sqrt(size); nothing but finite numbers.
    """
    if isinstance(array, torch.Tensor):
        array = array.detach().cpu().numpy()
    a = np.asarray(array, dtype=np.float64)
    if list(a.shape) != list(entry["shape"]):
        return False, {"shape": list(a.shape), "expected": entry["shape"]}
    samples = np.abs(a.reshape(-1)[np.asarray(entry["index"], dtype=np.int64)] - np.asarray(entry["value"]))
    statistics = {"mean": a.mean(), "std": a.std(), "min": a.min(), "max": a.max(), "l2": np.sqrt((a * a).sum())}
    report = {key: abs(float(value) - entry[key]) for key, value in statistics.items()}
    report["samples"] = float(samples.max(initial=0.0))
    allowed = {key: entry["atol"] * (np.sqrt(a.size) if key == "l2" else 1.0) for key in report}
    within = all(report[key] <= allowed[key] for key in report)
    return bool(within and np.isfinite(a).all()), report


def digest(value: list[str] | Any) -> str:
    """Return the sha256 of strings joined by newlines, or of an integer array as little-endian int64 in C order."""
    if isinstance(value, list):
        return hashlib.sha256("\n".join(value).encode()).hexdigest()
    return hashlib.sha256(np.ascontiguousarray(value, dtype="<i8").tobytes()).hexdigest()
