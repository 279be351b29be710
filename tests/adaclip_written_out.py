"""AdaCLIP written out from its description, one image and one sentence at a time, over tensors in published names.

Nothing of the product is used but the tokenizer and the list of sentences: the towers, the prompts, the maps and the
score are computed here from `weights` (OpenAI's names) and `learned` (names of the authors' files). The description is
arXiv 2407.15795 and the public code e27ee32, whose numbers this reproduces: exact GELU, a position table resized
bicubically without antialiasing, prompts rounded to half precision. Membership of clusters is an argument, because
k-means starts from random seeds in the public code.

Shapes: D tower width, E joint width, N patches, L rows; there is no batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

Named = dict[str, Tensor]
KEPT = 100  # patches that are clustered


class Answer(NamedTuple):
    """Hold what is computed of an image."""

    score: float
    map: Tensor  # [H, W]
    tokens: Tensor  # [4, N, E], unit
    text: Tensor  # [2, E], unit


def learned_tensors(seed: int, width: int, text_width: int, joint: int, length: int = 5, depth: int = 4) -> Named:
    """Draw a file's content: "clip_model.…" -> values, each large enough to matter."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        drawn: Tensor = torch.randn(shape, generator=generator) * shape[-1] ** -0.5
        return drawn

    state: Named = {}
    for layer in range(depth):
        state[f"text_prompter.static_prompts.{layer}"] = draw(length, text_width)
        state[f"visual_prompter.static_prompts.{layer}"] = draw(length, width)
    for head, count, outputs, inputs in (
        ("patch_token_layer", 4, joint, width),
        ("cls_token_layer", 1, joint, joint),
        ("dynamic_visual_prompt_generator", length, width, joint),
        ("dynamic_text_prompt_generator", length, text_width, joint),
    ):
        for number in range(count):
            state[f"{head}.head.{number}.weight"] = draw(outputs, inputs)
            state[f"{head}.head.{number}.bias"] = draw(outputs)
    return {f"clip_model.{name}": value for name, value in state.items()}


def detect(
    weights: Named,
    learned: Named,
    pixels: Tensor,
    sentences: tuple[list[list[int]], list[list[int]]],
    member: Callable[[Tensor], Tensor],
    *,
    patch: int,
    heads: tuple[int, int],
) -> Answer:
    """Score one image.

    Args:
        weights: both towers, OpenAI's names.
        learned: from `learned_tensors`.
        pixels: [3, H, W], normalised.
        sentences: token ids about normal and about abnormal things.
        member: takes the most anomalous patches [100, 4 E] and returns the number of the cluster of each, [100].
        patch: pixels a side of a patch.
        heads: attention heads of the image tower and of the text tower.
    """
    own = {name.removeprefix("clip_model."): value for name, value in learned.items()}
    size = (pixels.shape[1], pixels.shape[2])
    grid = (size[0] // patch, size[1] // patch)
    plain, _ = _image_tower(weights, pixels, patch, heads[0], [])
    visual, textual = (
        torch.stack([_linear(own, f"dynamic_{side}_prompt_generator.head.{row}", plain) for row in range(5)])
        for side in ("visual", "text")
    )
    prompts = [_half(own[f"visual_prompter.static_prompts.{layer}"] + visual) for layer in range(4)]
    embedding, levels = _image_tower(weights, pixels, patch, heads[0], prompts)
    deep = [_half(own[f"text_prompter.static_prompts.{layer}"] + textual) for layer in range(4)]
    directions = []
    for state in sentences:
        each = [F.normalize(_text_tower(weights, ids, heads[1], deep), dim=-1) for ids in state]
        directions.append(F.normalize(torch.stack(each).mean(dim=0), dim=-1))
    text = torch.stack(directions)  # [2, E]
    tokens = torch.stack(
        [F.normalize(_linear(own, f"patch_token_layer.head.{k}", level), dim=-1) for k, level in enumerate(levels)]
    )
    logits = 100 * tokens @ text.T  # [4, N, 2]
    large = [
        F.interpolate(one.T.reshape(1, 2, *grid), size=size, mode="bilinear", align_corners=True)[0] for one in logits
    ]
    share = torch.stack(large).mean(dim=0).softmax(dim=0)
    heat = ((share[1] + 1 - share[0]) / 2).numpy()
    blurred = torch.from_numpy(gaussian_filter(heat, sigma=4))
    abnormal = logits.mean(dim=0).softmax(dim=-1)[:, 1]
    chosen = abnormal.sort(descending=True, stable=True).indices[:KEPT]
    picked = tokens[:, chosen]  # [4, n, E]
    labels = member(picked.permute(1, 0, 2).flatten(1))
    centres = [picked[:, labels == label].mean(dim=(0, 1)) for label in labels.unique()]
    semantic = F.normalize(torch.stack(centres).mean(dim=0), dim=-1)
    image = F.normalize(_linear(own, "cls_token_layer.head.0", embedding), dim=-1)
    image = F.normalize(0.2 * semantic + 0.8 * image, dim=-1)
    score = (100 * image @ text.T).softmax(dim=-1)[1]
    return Answer(float(score), blurred, tokens, text)


def _half(prompts: Tensor) -> Tensor:
    return prompts.half().float()


def _linear(state: Named, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def _norm(state: Named, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5)


def _block(weights: Named, name: str, x: Tensor, heads: int, mask: Tensor | None) -> Tensor:
    """Run a residual block over rows [L, D]."""
    rows, width = x.shape
    inner = _norm(weights, f"{name}.ln_1", x)
    joined = inner @ weights[f"{name}.attn.in_proj_weight"].T + weights[f"{name}.attn.in_proj_bias"]
    q, k, v = (part.view(rows, heads, -1).transpose(0, 1) for part in joined.split(width, dim=1))
    scores = q @ k.transpose(1, 2) / (width // heads) ** 0.5
    if mask is not None:
        scores = scores + mask
    mixed = (scores.softmax(dim=-1) @ v).transpose(0, 1).reshape(rows, width)
    x = x + _linear(weights, f"{name}.attn.out_proj", mixed)
    hidden = F.gelu(_linear(weights, f"{name}.mlp.c_fc", _norm(weights, f"{name}.ln_2", x)))
    return x + _linear(weights, f"{name}.mlp.c_proj", hidden)


def _depth(weights: Named, tower: str) -> int:
    return sum(name.startswith(f"{tower}transformer.resblocks.") and name.endswith("ln_1.bias") for name in weights)


def _image_tower(
    weights: Named, pixels: Tensor, patch: int, heads: int, prompts: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Return the embedding [E], and the patch rows [N, D] after each quarter of the blocks."""
    patches = F.conv2d(pixels[None], weights["visual.conv1.weight"], stride=patch)[0]
    grid, width = patches.shape[1:], patches.shape[0]
    table = weights["visual.positional_embedding"]
    side = round((len(table) - 1) ** 0.5)
    square = table[1:].reshape(1, side, side, width).permute(0, 3, 1, 2)
    resized = F.interpolate(square, size=tuple(grid), mode="bicubic", align_corners=False)
    places = torch.cat([table[:1], resized[0].flatten(1).T])
    x = torch.cat([weights["visual.class_embedding"][None], patches.flatten(1).T]) + places
    x = _norm(weights, "visual.ln_pre", x)
    if prompts:
        x = torch.cat([x, prompts[0]])
    count, layers, levels = len(places), _depth(weights, "visual."), []
    for number in range(layers):
        if prompts and 0 < number < len(prompts):
            x = torch.cat([x[:count], prompts[number]])
        x = _block(weights, f"visual.transformer.resblocks.{number}", x, heads, None)
        if number + 1 in (layers // 4, layers // 2, layers * 3 // 4, layers):
            levels.append(x[1:count])
    return _norm(weights, "visual.ln_post", x[0]) @ weights["visual.proj"], levels


def _text_tower(weights: Named, ids: list[int], heads: int, deep: list[Tensor]) -> Tensor:
    """Return the embedding [E] of a sentence; `deep` overwrites rows 1 to 5 before the second to fourth block."""
    x = weights["token_embedding.weight"][ids] + weights["positional_embedding"][: len(ids)]
    mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
    for number in range(_depth(weights, "")):
        if 0 < number < len(deep):
            x = torch.cat([x[:1], deep[number], x[6:]])
        x = _block(weights, f"transformer.resblocks.{number}", x, heads, mask)
    return _norm(weights, "ln_final", x[-1]) @ weights["text_projection"]
